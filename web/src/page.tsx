// The page, in the order in which somebody who was woken asks: what is wrong, how bad, where.

import runbook from "virtual:runbook";
import { Charts } from "./parts/charts";
import { Headline, Notices } from "./parts/headline";
import { Routes, Sources, Writers } from "./parts/flows";
import { Drops, Letters } from "./parts/losses";
import { Receivers } from "./parts/receivers";
import { Servers } from "./parts/servers";
import { Tiles } from "./parts/tiles";
import { duration } from "./format";
import type { Known } from "./stream";

export function Page({ known }: { known: Known }) {
  const { health } = known.now;
  const word = known.speaks ? known.now.verdict.word : known.closed === null ? "No answer" : "Not live";
  document.title = `${word} · ${health.instance} · data-bridge`;
  return (
    <>
      <header>
        <h1>data-bridge</h1>
        <span class="soft">
          {health.instance} · {health.version} · up {duration(health.uptime_seconds)}
        </span>
        <span class={`link ${known.speaks ? "live" : "lost"}`}>{known.speaks ? "live" : "reconnecting"}</span>
      </header>
      <main>
        <Headline known={known} />
        <Notices health={health} word={word} />
        <Tiles known={known} />
        <Charts known={known} />
        <Sources known={known} />
        <div class="pair">
          <Writers known={known} />
          <Servers known={known} />
        </div>
        <Routes known={known} />
        <div class="pair">
          <Letters known={known} />
          <Drops health={health} />
        </div>
        <Receivers health={health} />
        <Config known={known} />
        <Runbook />
      </main>
      <footer class="soft">
        The same for programs: <a href="health">/health</a> <a href="metrics">/metrics</a>{" "}
        <a href="health/stream">/health/stream</a>
      </footer>
    </>
  );
}

function Config({ known }: { known: Known }) {
  const { config } = known.now.health;
  const refusal = config.last_refusal;
  return (
    <details class="card">
      <summary>
        <h2>Configuration in force</h2>
        <span class="soft">
          {config.hash.slice(0, 12)}
          {config.reloads > 0 && ` · changed ${config.reloads} times`}
        </span>
      </summary>
      {refusal && (
        <p>
          The last change was refused: <span class="text">{refusal.why}</span>
        </p>
      )}
      <pre tabIndex={0}>{known.config ?? "not told yet"}</pre>
    </details>
  );
}

function Runbook() {
  return (
    <details class="card" id="runbook">
      <summary>
        <h2>Runbook</h2>
        <span class="soft">what each alert means, what to look at, what to do</span>
      </summary>
      {/* Made from docs/runbook.md when the page was built. */}
      <div class="runbook" dangerouslySetInnerHTML={{ __html: runbook }} />
    </details>
  );
}
