// What did not land, why, and one of them.

import { count, timeOfDay, total, words } from "../format";
import type { Known } from "../stream";
import { Table, numbers, texts } from "../table";
import type { Health, Letter } from "../told";

/** More subjects than this help nobody; the rest is in `/health`. */
const SUBJECTS = 8;

export function Letters({ known }: { known: Known }) {
  const { metrics } = known.now.health;
  const rows = Object.entries(metrics.dead_letters_by_reason).flatMap(([route, reasons]) =>
    Object.entries(reasons).map(([reason, letters]) => ({
      key: `${route}/${reason}`,
      cells: [
        <>
          {route} <span class="soft">{words(reason)}</span>
        </>,
        count(letters),
        <Sample letter={known.now.letters.find((one) => one.route === route && one.reason === reason)} />,
      ],
    })),
  );
  return (
    <Table
      title="Dead letters"
      note="refused, and kept with their payload: data-bridge dead-letters list"
      columns={[...texts("route and reason"), ...numbers("count"), ...texts("the newest")]}
      rows={rows}
      none="None: every record fitted its table."
    />
  );
}

function Sample({ letter }: { letter: Letter | undefined }) {
  if (!letter) return null;
  const place = letter.partition === null ? "" : ` [${letter.partition}] @${letter.offset}`;
  return (
    <div class="sample">
      <span class="text">{letter.why}</span>
      <span class="soft text">
        {timeOfDay(Date.parse(letter.time))} {letter.topic_or_subject}
        {place}
      </span>
    </div>
  );
}

export function Drops({ health }: { health: Health }) {
  const rows = Object.entries(health.metrics.sources).flatMap(([name, source]) => {
    const byReason = Object.entries(source.dropped_by_reason).flatMap(([group, reasons]) =>
      Object.entries(reasons)
        .filter(([, records]) => records > 0)
        .map(([reason, records]) => ({
          key: `${name}/${group}/${reason}`,
          cells: [
            <>
              {name}, class {group} <span class="soft">{words(reason)}</span>
            </>,
            count(records),
            "",
          ],
        })),
    );
    const all = total(source.dropped_subjects);
    // Of which subjects they were is known of all together.
    const bySubject = { key: name, cells: [`${name}, in all`, count(all), <Subjects counts={source.dropped_subjects} />] };
    return all > 0 ? [...byReason, bySubject] : byReason;
  });
  return (
    <Table
      title="Dropped"
      note="lost for good, and counted"
      columns={[...texts("source, class and reason"), ...numbers("count"), ...texts("most of them from")]}
      rows={rows}
      none="None."
    />
  );
}

function Subjects({ counts }: { counts: Record<string, number> }) {
  const most = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const rest = total(Object.fromEntries(most.slice(SUBJECTS)));
  return (
    <ul class="subjects">
      {most.slice(0, SUBJECTS).map(([subject, records]) => (
        <li key={subject}>
          <span class="text">{subject}</span> <span class="soft">{count(records)}</span>
        </li>
      ))}
      {rest > 0 && <li class="soft">others {count(rest)}</li>}
    </ul>
  );
}
