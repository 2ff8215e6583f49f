// The bridge as this page knows it: what it said last, what was before, and whether it still speaks.
// It comes again by itself after whatever ends the stream: a restart, a proxy, a laptop's lid.

import { merged } from "./series";
import type { Health, Now, Sample } from "./told";

/** Once a second there is an event; after this long without one nobody speaks any more. */
const SILENT_MS = 4_000;
const AGAIN_MS = 1_000;

/** Behind one address two versions may answer by turns: no page loads itself again more often. */
const RELOAD_MS = 60_000;
const RELOADED_AT = "data-bridge reloaded at";

/** Rates of single sources and writers are over so long. */
const LOOK_BACK_MS = 10_000;

/** Counters of sources and writers at one time. */
interface Look {
  at: number;
  health: Health;
}

export interface Known {
  now: Now;
  samples: Sample[];
  /** TOML, secrets hidden; null until it was told. */
  config: string | null;
  /** When it spoke last, by this machine's clock. */
  heardAt: number;
  speaks: boolean;
  /** Why it does not, where it answers all the same; null where nothing is known of it. */
  closed: string | null;
  /** The one before, for rates. */
  looks: Look[];
}

export class Stream {
  private source: EventSource | null = null;
  private openedAt = 0;
  private asks = false;
  readonly known: Known;

  constructor(
    first: Now,
    private readonly changed: () => void,
  ) {
    const look = { at: first.sample.at, health: first.health };
    this.known = { now: first, samples: [first.sample], config: null, heardAt: Date.now(), speaks: true, closed: null, looks: [look] };
    this.open();
    setInterval(() => this.watch(), AGAIN_MS);
  }

  private open(): void {
    this.source?.close();
    this.openedAt = Date.now();
    const source = new EventSource("health/stream");
    const on = (name: string, act: (told: string) => void) =>
      source.addEventListener(name, (event) => act((event as MessageEvent<string>).data));
    on("history", (told) => this.remember(JSON.parse(told).samples));
    on("config", (told) => (this.known.config = JSON.parse(told).toml));
    on("status", (told) => this.hear(JSON.parse(told)));
    this.source = source;
  }

  /** Some ends of a stream a browser takes for final, and some it does not notice. */
  private watch(): void {
    const silent = Date.now() - Math.max(this.known.heardAt, this.openedAt) > SILENT_MS;
    if (silent || this.source?.readyState === EventSource.CLOSED) this.open();
    this.known.speaks = Date.now() - this.known.heardAt < SILENT_MS;
    if (this.known.speaks) return;
    this.changed();
    if (!this.asks) void this.ask();
  }

  /** A stream that does not open does not say why. Whoever answers something is there. */
  private async ask(): Promise<void> {
    this.asks = true;
    try {
      const answer = await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(SILENT_MS) });
      this.known.closed = CLOSED[answer.status] ?? `Something at this address answers with ${answer.status}.`;
      if (answer.ok || answer.status === 503) this.known.now.health = await answer.json();
    } catch {
      this.known.closed = null;
    }
    this.asks = false;
  }

  private remember(samples: Sample[]): void {
    this.known.samples = merged(this.known.samples, samples);
  }

  private hear(now: Now): void {
    const { known } = this;
    if (now.health.version !== known.now.health.version) reload();
    if (now.health.started_at !== known.now.health.started_at) known.looks = [];
    const recent = known.looks.filter((look) => look.at > now.sample.at - LOOK_BACK_MS);
    known.looks = [...recent, { at: now.sample.at, health: now.health }];
    known.now = now;
    known.heardAt = Date.now();
    known.speaks = true;
    known.closed = null;
    this.remember([now.sample]);
    this.changed();
  }
}

/** By what `/health` answers while the stream does not. */
const CLOSED: Record<number, string> = {
  200: "The bridge answers, but not as a stream: as many watch as may (16), or something on the way keeps it back.",
  401: "The bridge asks for its token, which is another one by now: load the page again.",
  503: "The bridge answers that it is not well, or going away.",
};

/** Another version has another page. */
function reload(): void {
  const last = Number(sessionStorage.getItem(RELOADED_AT) ?? 0);
  if (Date.now() - last < RELOAD_MS) return;
  sessionStorage.setItem(RELOADED_AT, String(Date.now()));
  location.reload();
}

/** How fast a counter of `/health` grows; null until there were two looks. */
export function rateOf(known: Known, counter: (health: Health) => number | undefined): number | null {
  const [first, last] = [known.looks[0], known.looks.at(-1)];
  if (!first || !last || last.at <= first.at) return null;
  const [before, after] = [counter(first.health), counter(last.health)];
  if (before === undefined || after === undefined) return null;
  return Math.max(0, ((after - before) * 1000) / (last.at - first.at));
}
