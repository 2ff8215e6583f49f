// The live feed for people: what there is, what comes, and a word into it.

import { count, perSecond } from "../format";
import { Table, numbers, texts } from "../table";
import { KEPT, type Feed, type Line, type Link } from "./feed";

/** Rows of topics; a bridge may have thousands, by key. */
const TOPICS = 200;

/** Rows of messages on the screen. */
const ROWS = 200;

const WORDS: Record<Link, string> = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  locked: "locked",
  closed: "not open",
};

export function Page({ feed }: { feed: Feed }) {
  const open = feed.link !== "locked" && feed.link !== "closed";
  return (
    <>
      <header>
        <h1>data-bridge live</h1>
        <span class="soft">
          <a href="./">dashboard</a> · <a href="docs">interfaces</a>
        </span>
        <span class={`link ${feed.link === "live" ? "live" : "lost"}`} role="status">
          {WORDS[feed.link]}
        </span>
      </header>
      <main>
        {feed.why && (
          <p class="card state bad" role="alert">
            {feed.why}
          </p>
        )}
        {feed.link === "locked" && <Lock feed={feed} />}
        {open && <Watch feed={feed} />}
        {open && <Messages feed={feed} />}
        {open && <Topics feed={feed} />}
        {open && <Publish feed={feed} />}
      </main>
      <footer class="soft">
        The same for programs: <a href="stats">/stats</a> <a href="subscriber-stats">/subscriber-stats</a>{" "}
        <a href="docs">/docs</a>
      </footer>
    </>
  );
}

/** What stands in a form's field. */
function field(event: Event, name: string): string {
  event.preventDefault();
  return String(new FormData(event.currentTarget as HTMLFormElement).get(name) ?? "").trim();
}

function Lock({ feed }: { feed: Feed }) {
  return (
    <form class="card bar" aria-label="Token" onSubmit={(event) => feed.unlock(field(event, "token"))}>
      <label>
        The bridge's token <input name="token" type="password" autocomplete="current-password" required />
      </label>
      <button>Open</button>
      <span class="soft">It stays in this tab's memory.</span>
    </form>
  );
}

function Watch({ feed }: { feed: Feed }) {
  const watch = (event: Event) => feed.watch(field(event, "topic"), Number(field(event, "last")));
  return (
    <form class="card bar" aria-label="Watch" onSubmit={watch}>
      <label>
        Watch <input name="topic" placeholder="candles, or candles/*" list="topics" required />
      </label>
      <label>
        from before <input name="last" type="number" min="0" max="10000" value="10" />
      </label>
      <button>Watch</button>
      <datalist id="topics">
        {Object.keys(feed.stats?.topics ?? {})
          .slice(0, TOPICS)
          .map((topic) => (
            <option value={topic} key={topic} />
          ))}
      </datalist>
      <ul class="chips" aria-label="Watched">
        {[...feed.watched].map(([topic, lost]) => (
          <li key={topic}>
            <span class="text">{topic}</span>
            {lost > 0 && <b class="lost">{count(lost)} lost</b>}
            <button type="button" onClick={() => feed.leave(topic)} aria-label={`Stop watching ${topic}`}>
              ×
            </button>
          </li>
        ))}
      </ul>
    </form>
  );
}

function Messages({ feed }: { feed: Feed }) {
  const lines = feed.held ?? feed.lines;
  return (
    <section class="card" aria-label="Messages">
      <div class="title">
        <h2>Messages</h2>
        <span class="soft">
          {feed.held ? `paused, ${count(feed.behind)} more` : `the newest first, ${KEPT} are kept`}
          {feed.lost > 0 && ` · ${count(feed.lost)} lost`}
        </span>
        <span class="tools">
          <button type="button" aria-pressed={feed.held !== null} onClick={() => feed.pause()}>
            {feed.held ? "Go on" : "Pause"}
          </button>
          <button type="button" onClick={() => feed.clear()}>
            Clear
          </button>
        </span>
      </div>
      {lines.length === 0 ? (
        <p class="soft none">{feed.watched.size ? "Nothing has come yet." : "Watch a topic to see what comes."}</p>
      ) : (
        <ol class="lines" tabIndex={0} aria-label="What came, the newest first">
          {lines.slice(0, ROWS).map((line) => (
            <One line={line} key={line.key} />
          ))}
        </ol>
      )}
    </section>
  );
}

function One({ line }: { line: Line }) {
  return (
    <li class={line.tone}>
      <time class="soft" dateTime={line.ts}>
        {line.ts.slice(11, 23)}
      </time>
      <span class="topic text">{line.topic}</span>
      <span class="payload text">{line.text}</span>
    </li>
  );
}

function Topics({ feed }: { feed: Feed }) {
  const all = Object.entries(feed.stats?.topics ?? {});
  const rows = all.slice(0, TOPICS).map(([name, topic]) => ({
    key: name,
    cells: [
      <span class="text">{name}</span>,
      topic.kind,
      perSecond(topic.rate),
      count(topic.messages),
      count(topic.subscribers),
      count(topic.dropped + topic.overrun),
      feed.watched.has(name) ? (
        <button type="button" onClick={() => feed.leave(name)} aria-label={`Stop ${name}`}>
          Stop
        </button>
      ) : (
        <button type="button" onClick={() => feed.watch(name, 10)} aria-label={`Watch ${name}`}>
          Watch
        </button>
      ),
    ],
  }));
  const note = all.length > TOPICS ? `the first ${TOPICS} of ${count(all.length)}` : "";
  return (
    <Table
      title="Topics"
      note={note}
      columns={[...texts("topic", "kind"), ...numbers("rate", "messages", "subscribers", "lost", "")]}
      rows={rows}
      none="There is none."
    />
  );
}

function Publish({ feed }: { feed: Feed }) {
  const publish = (event: SubmitEvent) => {
    const topic = field(event, "topic");
    const creates = (event.submitter as HTMLButtonElement | null)?.value === "create";
    if (creates) void feed.create(topic);
    else feed.publish(topic, field(event, "message"));
  };
  return (
    <form class="card bar" aria-label="Publish" onSubmit={publish}>
      <label>
        Topic <input name="topic" list="topics" required />
      </label>
      <label class="wide">
        Message <input name="message" placeholder={'{"a": 1}, or a text'} />
      </label>
      <button>Publish</button>
      <button value="create">Create the topic</button>
      <span class={feed.said ? `state ${feed.said.bad ? "bad" : "good"}` : ""} role="status">
        {feed.said?.text}
      </span>
    </form>
  );
}
