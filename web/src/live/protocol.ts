// What the bridge says on the socket and at `/stats`, as far as the page shows it: docs/live.md.

export interface Told {
  type: "ack" | "event" | "error" | "info" | "pong";
  request_id?: number;
  ts: string;
  topic?: string;
  message?: { id: string; payload: unknown };
  error?: { code: string; message: string };
  /** Of an `info`. */
  event?: "shutdown" | "topic_deleted" | "dropped";
  dropped?: number;
  replayed?: number;
  subscribers?: number;
}

export interface TopicStats {
  kind: "route" | "key" | "user";
  messages: number;
  rate: number;
  subscribers: number;
  replay_depth: number;
  dropped: number;
  overrun: number;
}

export interface Stats {
  topics: Record<string, TopicStats>;
  totals: { connections: number; subscribers: number; rate: number };
}

interface Source {
  source: string;
}

type Reviver = (key: string, value: unknown, context?: Source) => unknown;

/** Where the browser can, numbers keep every digit that they were sent with. */
const raw = (JSON as unknown as { rawJSON?: (text: string) => unknown }).rawJSON;
const exact: Reviver = (_key, value, context) =>
  raw && context && typeof value === "number" && !Number.isSafeInteger(value) ? raw(context.source) : value;

export function parsed(text: string): unknown {
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown);
}

/** A text by itself, anything else as JSON. */
export function shown(payload: unknown): string {
  return typeof payload === "string" ? payload : JSON.stringify(payload);
}

/** Browsers can give a socket no header: the token is a subprotocol. */
export function subprotocols(token: string): string[] {
  if (!token) return ["data-bridge.v1"];
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  const text = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["data-bridge.v1", `bearer.${text}`];
}
