// The feed as this page knows it: what is subscribed to, the newest messages, what was lost. Owns the
// socket; when it ends, it is opened again, and what came meanwhile is asked for, as far as the bridge
// remembers it. Everything that is kept has a bound.

import { parsed, shown, subprotocols, type Stats, type Told } from "./protocol";

/** Messages that the page keeps. */
export const KEPT = 500;

const STATS_MS = 2_000;
const AGAIN_MS = 1_000;
const AGAIN_AT_MOST_MS = 10_000;

/** Asked for of each topic after a reconnection. */
const REPLAYED = 100;

export interface Line {
  key: number;
  ts: string;
  topic: string;
  text: string;
  /** No message, but word of a loss or a refusal. */
  tone?: "warn" | "bad" | "calm";
}

export type Link = "connecting" | "live" | "reconnecting" | "locked" | "closed";

export class Feed {
  link: Link = "connecting";
  /** Why, where there is a reason to be told. */
  why = "";
  stats: Stats | null = null;
  /** By topic, how many messages of it were lost on the way to this page. */
  readonly watched = new Map<string, number>();
  /** The newest first. */
  lines: Line[] = [];
  lost = 0;
  /** What stands still while the view is paused. */
  held: Line[] | null = null;
  heldSince = 0;
  said: { text: string; bad: boolean } | null = null;

  private token = "";
  private socket: WebSocket | null = null;
  private failures = 0;
  private asked = 0;
  private lineCount = 0;
  private again = false;
  private readonly ids = new Set<string>();
  private readonly publishing = new Map<number, string>();

  constructor(private readonly changed: () => void) {
    void this.look();
    setInterval(() => void this.look(), STATS_MS);
  }

  unlock(token: string): void {
    this.token = token;
    this.why = "";
    this.link = "connecting";
    void this.look();
  }

  watch(topic: string, last: number): void {
    if (!topic || this.watched.has(topic)) return;
    this.watched.set(topic, 0);
    this.say({ type: "subscribe", topic, last_n: last });
    this.changed();
  }

  leave(topic: string): void {
    if (!this.watched.delete(topic)) return;
    this.say({ type: "unsubscribe", topic });
    this.changed();
  }

  publish(topic: string, text: string): void {
    let payload: unknown = text;
    try {
      payload = parsed(text);
    } catch {
      // what is no JSON is a text
    }
    const message = { id: id(), payload };
    const number = this.say({ type: "publish", topic, message });
    if (number === null) this.tell("not connected", true);
    else this.publishing.set(number, topic);
  }

  async create(topic: string): Promise<void> {
    const answer = await this.ask("topics", { method: "POST", body: JSON.stringify({ name: topic }) });
    if (!answer) return this.tell("the bridge does not answer", true);
    if (!answer.ok) return this.tell(((await answer.json()) as { detail: string }).detail, true);
    this.tell(`there is a topic ${topic}`, false);
    await this.look();
  }

  /** Stops the view, not the feed. */
  pause(): void {
    this.held = this.held ? null : this.lines;
    this.heldSince = this.lineCount;
    this.changed();
  }

  /** Lines that came since the view was paused. */
  get behind(): number {
    return this.held ? this.lineCount - this.heldSince : 0;
  }

  clear(): void {
    this.lines = [];
    if (this.held) this.held = [];
    this.heldSince = this.lineCount;
    this.changed();
  }

  private tell(text: string, bad: boolean): void {
    this.said = { text, bad };
    this.changed();
  }

  private async ask(path: string, more: RequestInit = {}): Promise<Response | null> {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : undefined;
    return fetch(path, { headers, credentials: "omit", ...more }).catch(() => null);
  }

  /** The topics; and whether we may see them at all, which a socket does not say. */
  private async look(): Promise<void> {
    if (this.link === "locked") return;
    const answer = await this.ask("stats");
    if (answer?.ok) {
      this.stats = (await answer.json()) as Stats;
      if (!this.socket && this.link === "connecting") this.open();
    } else if (answer?.status === 401) {
      this.lock();
    } else if (answer) {
      this.link = "closed";
      this.why = ((await answer.json()) as { detail: string }).detail;
    } else if (this.link === "connecting") {
      this.why = "The bridge does not answer.";
    }
    this.changed();
  }

  private lock(): void {
    this.why = this.token ? "This is not the token." : "";
    this.token = "";
    this.link = "locked";
  }

  private open(): void {
    const address = new URL("ws", location.href.replace(/^http/, "ws"));
    const socket = new WebSocket(address, subprotocols(this.token));
    this.socket = socket;
    socket.onopen = () => this.opened();
    socket.onmessage = ({ data }) => this.hear(parsed(data as string) as Told);
    socket.onclose = ({ reason }) => this.ended(reason);
  }

  private opened(): void {
    this.link = "live";
    this.why = "";
    this.failures = 0;
    for (const topic of this.watched.keys()) {
      this.say({ type: "subscribe", topic, last_n: this.again ? REPLAYED : 0 });
    }
    this.changed();
  }

  private ended(reason: string): void {
    this.socket = null;
    if (this.link !== "locked") {
      this.link = "reconnecting";
      this.why = reason;
      this.again = true;
      this.failures += 1;
      const wait = Math.min(AGAIN_MS * 2 ** (this.failures - 1), AGAIN_AT_MOST_MS);
      setTimeout(() => {
        // A refusal has no reason in a browser; the statistics tell.
        this.link = "connecting";
        void this.look();
      }, wait);
    }
    this.publishing.clear();
    this.changed();
  }

  private say(message: object): number | null {
    if (this.socket?.readyState !== WebSocket.OPEN) return null;
    this.asked += 1;
    this.socket.send(JSON.stringify({ ...message, request_id: this.asked }));
    return this.asked;
  }

  private hear(told: Told): void {
    const topic = told.topic ?? "";
    const publishing = this.publishing.get(told.request_id ?? 0);
    this.publishing.delete(told.request_id ?? 0);
    if (told.message) this.event(told, told.message);
    else if (told.error && publishing) this.tell(`${told.error.code}: ${told.error.message}`, true);
    else if (told.error) this.line(told.ts, "", `${told.error.code}: ${told.error.message}`, "bad");
    else if (publishing) this.tell(published(publishing, told), false);
    else if (told.event === "dropped") this.miss(told.ts, topic, told.dropped ?? 0);
    else if (told.event === "topic_deleted") {
      this.watched.delete(topic);
      this.line(told.ts, topic, "the topic was deleted", "warn");
    } else if (told.event === "shutdown") this.line(told.ts, "", "the bridge stops", "warn");
    this.changed();
  }

  private event(told: Told, message: { id: string; payload: unknown }): void {
    // On one connection a record that comes again is shown again.
    if (this.again && this.ids.has(message.id)) return;
    this.ids.add(message.id);
    if (this.ids.size > KEPT) this.ids.delete(this.ids.values().next().value as string);
    this.line(told.ts, told.topic ?? "", shown(message.payload));
  }

  private miss(ts: string, topic: string, count: number): void {
    this.lost += count;
    this.watched.set(topic, (this.watched.get(topic) ?? 0) + count);
    this.line(ts, topic, `${count} messages were lost here: this page was too slow`, "warn");
  }

  private line(ts: string, topic: string, text: string, tone?: Line["tone"]): void {
    this.lineCount += 1;
    const line = { key: this.lineCount, ts, topic, text, ...(tone && { tone }) };
    this.lines = [line, ...this.lines.slice(0, KEPT - 1)];
  }
}

/** A route's topic has its subscribers later, when the record is admitted. */
function published(topic: string, { subscribers }: Told): string {
  return subscribers === undefined ? `published to the route ${topic}` : `published to ${topic}, for ${subscribers} subscribers`;
}

/** A UUID; `crypto.randomUUID` is only for pages of this machine and of HTTPS. */
function id(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
