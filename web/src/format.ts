// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

const NOTHING = "–";

export function count(value: number | null | undefined): string {
  return value == null ? NOTHING : whole.format(value);
}

/** For axes, where there is little room. */
export function brief(value: number): string {
  return short.format(value);
}

export function perSecond(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  return `${value > 0 && value < 10 ? value.toFixed(1) : whole.format(value)}/s`;
}

export function millis(seconds: number | null | undefined): string {
  if (seconds == null) return NOTHING;
  const ms = seconds * 1000;
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  return `${ms > 0 && ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left >= 100 || unit === 0 ? left.toFixed(0) : left.toFixed(1)} ${units[unit]}`;
}

/** In the two largest units that say something. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return NOTHING;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s / 60} min`;
  const minutes = Math.floor(s / 60);
  if (s < 86_400) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor(minutes / 60) % 24} h`;
}

/** In the largest unit: a forecast is no more exact. */
export function roughly(seconds: number | null): string {
  if (seconds === null) return NOTHING;
  const units: [string, number][] = [["d", 86_400], ["h", 3600], ["min", 60]];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? ["s", 1];
  return `${Math.round(seconds / size)} ${unit}`;
}

export function timeOfDay(ms: number): string {
  return Number.isNaN(ms) ? NOTHING : clock.format(ms);
}

/** A code as words: `at_least_once`. */
export function words(code: string): string {
  return code.replaceAll("_", " ");
}

export function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

type Counts = Record<string, number>;
