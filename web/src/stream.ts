// The bridge as this page knows it: what it said last, what was before, and whether it still speaks.
// It comes again by itself after whatever ends the stream: a restart, a proxy, a laptop's lid.

import { merged } from "./series";
import type { Health, Now, Sample } from "./told";

/** Once a second there is an event; after this long without one nobody speaks any more. */
const SILENT_MS = 4_000;
const AGAIN_MS = 1_000;

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
  /** The one before, for rates. */
  looks: Look[];
}

export class Stream {
  private source: EventSource | null = null;
  private openedAt = 0;
  readonly known: Known;

  constructor(
    first: Now,
    private readonly changed: () => void,
  ) {
    const look = { at: first.sample.at, health: first.health };
    this.known = { now: first, samples: [first.sample], config: null, heardAt: Date.now(), speaks: true, looks: [look] };
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
    if (!this.known.speaks) this.changed();
  }

  private remember(samples: Sample[]): void {
    this.known.samples = merged(this.known.samples, samples);
  }

  private hear(now: Now): void {
    const { known } = this;
    if (now.health.version !== known.now.health.version) location.reload(); // its page is another one too
    if (now.health.started_at !== known.now.health.started_at) known.looks = [];
    const recent = known.looks.filter((look) => look.at > now.sample.at - LOOK_BACK_MS);
    known.looks = [...recent, { at: now.sample.at, health: now.health }];
    known.now = now;
    known.heardAt = Date.now();
    known.speaks = true;
    this.remember([now.sample]);
    this.changed();
  }
}

/** How fast a counter of `/health` grows; null until there were two looks. */
export function rateOf(known: Known, counter: (health: Health) => number | undefined): number | null {
  const [first, last] = [known.looks[0], known.looks.at(-1)];
  if (!first || !last || last.at <= first.at) return null;
  const [before, after] = [counter(first.health), counter(last.health)];
  if (before === undefined || after === undefined) return null;
  return Math.max(0, ((after - before) * 1000) / (last.at - first.at));
}
