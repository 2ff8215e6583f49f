import { render } from "preact";
import { Feed } from "./feed";
import { Page } from "./page";
import "../style.css";
import "./live.css";

const place = document.getElementById("page") as HTMLElement;
let asked = false;

/** However much comes, the page is drawn once a frame. */
const feed = new Feed(() => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
});

function draw(): void {
  render(<Page feed={feed} />, place);
}

draw();
