// Who is told of alerts, and whether it hears of them. Of an address only the host is known here.

import { count, timeOfDay } from "../format";
import { State, Table, numbers, texts } from "../table";
import type { Health, Webhook } from "../told";

export function Receivers({ health }: { health: Health }) {
  if (health.webhooks.length === 0) return null;
  const rows = health.webhooks.map((webhook) => ({
    key: webhook.name,
    cells: [
      <>
        {webhook.name} <span class="soft">{webhook.kind}</span>
      </>,
      webhook.to,
      <LastMessage webhook={webhook} />,
      count(webhook.sent),
      count(webhook.failed),
    ],
  }));
  return (
    <Table
      title="Receivers of alerts"
      note="data-bridge alerts test tries them"
      columns={[...texts("receiver", "to", "the last message"), ...numbers("delivered", "failed")]}
      rows={rows}
      none=""
    />
  );
}

function LastMessage({ webhook }: { webhook: Webhook }) {
  const { state, since, reason } = webhook;
  if (state === "untold" || since === null) return <State tone="calm">nothing was to be told yet</State>;
  const at = timeOfDay(Date.parse(since));
  if (state === "delivered") return <State tone="good">delivered, since {at}</State>;
  return (
    <State tone="bad">
      refused since {at}: {reason}
    </State>
  );
}
