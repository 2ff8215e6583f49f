// ClickHouse as the bridge sees it: the breaker before it, and its servers.

import { count, timeOfDay } from "../format";
import type { Known } from "../stream";
import { State, Table, texts } from "../table";
import type { Metrics } from "../told";

export function Servers({ known }: { known: Known }) {
  const { breaker, endpoints } = known.now.health.metrics;
  const rows = [
    { key: "breaker", cells: ["circuit breaker", <Breaker breaker={breaker} />, history(breaker)] },
    ...endpoints.map((server) => ({ key: server.url, cells: [server.url, answers(server), waits(server)] })),
  ];
  return (
    <Table
      title="ClickHouse"
      columns={texts("what", "state", "more")}
      rows={rows}
      none=""
    />
  );
}

type Server = Metrics["endpoints"][number];

function answers({ healthy, reason }: Server) {
  return healthy ? <State tone="good">answers</State> : <State tone="bad">away: {reason}</State>;
}

function waits({ unclear_inserts: inserts }: Server): string {
  return inserts > 0 ? `${count(inserts)} inserts wait: it alone knows whether they landed` : "";
}

function Breaker({ breaker }: { breaker: Metrics["breaker"] }) {
  if (breaker.state === "closed") return <State tone="good">closed: inserts go</State>;
  const next = breaker.probe_at ? `the next try at ${timeOfDay(Date.parse(breaker.probe_at))}` : "a try is under way";
  return (
    <State tone="bad">
      open: {breaker.reason}; {next}
    </State>
  );
}

function history({ failures, openings, rejects }: Metrics["breaker"]): string {
  if (openings === 0 && failures === 0) return "never opened";
  return `${count(failures)} failures in a row, opened ${count(openings)} times, ${count(rejects)} batches had to wait`;
}
