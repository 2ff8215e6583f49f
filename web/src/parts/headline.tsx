// What is wrong, since when, why, and what to do; then what else is.

import type { ComponentChildren } from "preact";

import { duration, timeOfDay } from "../format";
import type { Known } from "../stream";
import type { Alert, Condition, Health } from "../told";

const TONES: Record<Condition, string> = {
  starting: "calm",
  healthy: "good",
  degraded: "warn",
  critical: "bad",
  draining: "calm",
};

export function Headline({ known }: { known: Known }) {
  const { verdict, since, sample } = known.now;
  if (known.closed !== null) {
    return (
      <Old tone="warn" word="Not live" known={known}>
        <p class="why">
          {known.closed} It says that it is {known.now.health.status}; charts and rates below are what it said last.
        </p>
        <p class="remedy">
          <b>What to do</b> Close pages that nobody looks at. This one tries again every second; <a href="health">/health</a>{" "}
          says the same.
        </p>
      </Old>
    );
  }
  if (!known.speaks) {
    return (
      <Old tone="bad" word="No answer" known={known}>
        <p class="why">The bridge at this address does not answer; below is what it said last.</p>
        <p class="remedy">
          <b>What to do</b> Does its process run, and what does the end of its log say? This page tries again every few
          seconds. <Entry anchor="down" />
        </p>
      </Old>
    );
  }
  const age = (sample.at - Date.parse(since)) / 1000;
  return (
    <section class={`headline ${TONES[verdict.condition]}`} aria-label="State">
      <p class="word" role="status">
        {verdict.word}
      </p>
      <div>
        <p class="why">{verdict.why}</p>
        {verdict.remedy && (
          <p class="remedy">
            <b>What to do</b> {verdict.remedy} {verdict.runbook && <Entry anchor={verdict.runbook} />}
          </p>
        )}
      </div>
      <p class="since soft">
        <span>
          for {duration(age)}, now {verdict.condition}
        </span>
        <span>since {timeOfDay(Date.parse(since))}</span>
      </p>
    </section>
  );
}

/** What is below is partly old: why, and what to do. */
function Old({ tone, word, known, children }: { tone: "warn" | "bad"; word: string; known: Known; children: ComponentChildren }) {
  return (
    <section class={`headline ${tone}`} aria-label="State">
      <p class="word" role="status">
        {word}
      </p>
      <div>{children}</div>
      <p class="since soft">
        <span>for {duration((Date.now() - known.heardAt) / 1000)}</span>
        <span>since {timeOfDay(known.heardAt)}</span>
      </p>
    </section>
  );
}

/** What the headline does not say already. */
export function Notices({ health, word }: { health: Health; word: string }) {
  const needs = word === "Needs a person" && health.needs_person.length === 1 ? [] : health.needs_person;
  const deaf = health.webhooks.filter((webhook) => webhook.state === "refused");
  if (needs.length + deaf.length + health.alerts.length === 0) return null;
  return (
    <section aria-label="Alerts">
      <ul class="notices">
        {needs.map((text) => (
          <li class="bad" key={text}>
            <b>Needs a person</b> <span class="text">{text}</span> <Entry anchor="needs_person" />
          </li>
        ))}
        {deaf.map(({ name, reason, since }) => (
          <li class="bad" key={name}>
            <b>Alerts do not reach {name}</b> <span class="text">{sentence(reason ?? "not taken")}</span>{" "}
            {since && <span class="soft">since {timeOfDay(Date.parse(since))}</span>}
          </li>
        ))}
        {health.alerts.map((alert) => (
          <One alert={alert} key={`${alert.id} ${alert.of}`} />
        ))}
      </ul>
    </section>
  );
}

function One({ alert }: { alert: Alert }) {
  const [page = "", anchor = ""] = alert.runbook.split("#");
  return (
    <li class={alert.severity === "critical" ? "bad" : "warn"}>
      <b>{sentence(alert.summary)}</b> <span class="soft">since {timeOfDay(Date.parse(alert.since))}</span>
      <br />
      {sentence(alert.remedy)} {page.startsWith("https://") ? <a href={alert.runbook}>runbook</a> : <Entry anchor={anchor} />}
    </li>
  );
}

/** In the log it is a part of a line. */
function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}

/** The runbook is at the end of this page, folded. */
function Entry({ anchor }: { anchor: string }) {
  const open = () => document.getElementById("runbook")?.setAttribute("open", "");
  return (
    <a href={`#${anchor}`} onClick={open}>
      runbook: {anchor}
    </a>
  );
}
