// Watches a topic of the live feed: node live.mjs [ws://localhost:8080/ws] [candles] [COUNT]
// Browsers have a WebSocket, and Node from 22 on; older ones take that of `npm install ws`.
const { WebSocket = (await import("ws")).WebSocket } = globalThis;
const [url = "ws://localhost:8080/ws", topic = "candles", count = Infinity] = process.argv.slice(2);

const socket = new WebSocket(url);
let seen = 0;

socket.addEventListener("open", () => {
  socket.send(JSON.stringify({ type: "subscribe", topic, last_n: 10 }));
});

socket.addEventListener("message", ({ data }) => {
  const message = JSON.parse(data);
  console.log(JSON.stringify(message));
  if (message.type === "event" && ++seen === Number(count)) socket.close();
});

socket.addEventListener("close", ({ code }) => console.error(`closed: ${code}`));
