// What the bridge tells: the JSON of `/health` as far as the page shows it, and the events of
// `/health/stream`. Counters count since the start of the process.

export type Condition = "starting" | "healthy" | "degraded" | "critical" | "draining";
export type Counts = Record<string, number>;

export interface Now {
  verdict: Verdict;
  since: string;
  sample: Sample;
  health: Health;
  letters: Letter[];
}

/** What is to be said first. */
export interface Verdict {
  condition: Condition;
  word: string;
  why: string;
  remedy: string | null;
  /** An anchor of the runbook. */
  runbook: string | null;
}

/** One look; the bridge takes one a second and keeps ten minutes of them. */
export interface Sample {
  /** Milliseconds since 1970, by the bridge's clock. */
  at: number;
  held: number;
  paused: boolean;
  received: number;
  inserted: number;
  lag: number | null;
  inserts: number;
  insert_seconds: number;
}

/** Without its values: they may be personal. */
export interface Letter {
  time: string;
  route: string;
  reason: string;
  why: string;
  source: string;
  topic_or_subject: string;
  partition: number | null;
  offset: number | null;
}

export interface Health {
  version: string;
  instance: string;
  status: Condition;
  uptime_seconds: number;
  started_at: string;
  wedged: string | null;
  needs_person: string[];
  alerts: Alert[];
  webhooks: Webhook[];
  config: { hash: string; reloads: number; last_refusal: { at: string; why: string } | null };
  metrics: Metrics;
}

export interface Alert {
  id: string;
  of: string | null;
  severity: "warning" | "critical";
  since: string;
  summary: string;
  remedy: string;
  runbook: string;
}

/** Who is told of alerts: what became of the last message, and since when it is so. */
export interface Webhook {
  name: string;
  kind: "json" | "slack" | "alertmanager";
  /** Scheme and host. */
  to: string;
  state: "untold" | "delivered" | "refused";
  since: string | null;
  reason: string | null;
  sent: number;
  failed: number;
}

export interface Metrics {
  backpressure: Backpressure;
  forecast: { full_in_seconds: number | null; drained_in_seconds: number | null };
  breaker: Breaker;
  endpoints: { url: string; healthy: boolean; reason: string | null; unclear_inserts: number }[];
  writers: Record<string, Writer>;
  sources: Record<string, Source>;
  routes: Record<string, Route>;
  dead_letters: number;
  dead_letters_pending: number;
  dead_letters_by_reason: Record<string, Counts>;
  filtered: number;
  dropped: number;
}

export interface Breaker {
  state: "closed" | "open" | "half_open";
  failures: number;
  openings: number;
  rejects: number;
  probe_at: string | null;
  reason: string | null;
}

export interface Backpressure {
  active: boolean;
  causes: string[];
  current_buffer: number;
  peak_buffer: number;
  pause_threshold: number;
  resume_threshold: number;
  max_buffer_size: number;
  utilization: number;
  current_bytes: number;
  max_buffer_bytes: number;
  pause_count: number;
  last_pause: string | null;
  last_resume: string | null;
  paused_seconds: number;
  paused_seconds_total: number;
}

export interface Writer {
  buffered: number;
  in_flight: number;
  inserted: number;
  inserts: number;
  failed_inserts: number;
  insert_seconds: number;
}

export interface Source {
  connected: boolean;
  error: string | null;
  received: number;
  paused: boolean;
  held_topics: string[];
  assigned?: number;
  lag?: number | null;
  held: number;
  uncommitted: number;
  released: number;
  dropped_by_reason: Record<string, Counts>;
  dropped_subjects: Counts;
  /** Only of the source that is published into. */
  refused_requests?: number;
  unrouted: Counts;
}

export interface Route {
  received: number;
  inserted: number;
  dead_lettered: number;
  filtered: number;
  dropped: number;
  held: number;
  table: string | null;
  guarantees: Record<string, string>;
  state: "starting" | "running" | "retrying" | "awaiting_fix" | "removed";
  held_back: boolean;
  reason?: string;
}
