// A table in a card; on a narrow screen it scrolls by itself, by keyboard too.

import type { ComponentChildren } from "preact";

export interface Column {
  name: string;
  /** Words stand left, numbers right. */
  words?: boolean;
}

export const texts = (...names: string[]): Column[] => names.map((name) => ({ name, words: true }));
export const numbers = (...names: string[]): Column[] => names.map((name) => ({ name }));

export type Cell = ComponentChildren;

interface Shown {
  title: string;
  note?: string;
  columns: Column[];
  rows: { key: string; cells: Cell[] }[];
  none: string;
}

export function Table({ title, note, columns, rows, none }: Shown) {
  const kind = (index: number) => (columns[index]?.words ? "words" : "number");
  return (
    <section class="card" aria-label={title}>
      <div class="title">
        <h2>{title}</h2>
        <span class="soft">{note}</span>
      </div>
      {rows.length === 0 ? (
        <p class="soft none">{none}</p>
      ) : (
        <div class="scroll" tabIndex={0} role="group" aria-label={`${title}, as a table`}>
          <table>
            <thead>
              <tr>
                {columns.map((column, index) => (
                  <th scope="col" class={kind(index)} key={column.name}>
                    {column.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map(({ key, cells }) => (
                <tr key={key}>
                  {cells.map((cell, index) =>
                    index === 0 ? (
                      <th scope="row" class="words">
                        {cell}
                      </th>
                    ) : (
                      <td class={kind(index)}>{cell}</td>
                    ),
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

export function State({ tone, children }: { tone: "good" | "warn" | "bad" | "calm"; children: ComponentChildren }) {
  return <span class={`state ${tone}`}>{children}</span>;
}
