import { render } from "preact";
import { Page } from "./page";
import { Stream } from "./stream";
import "uplot/dist/uPlot.min.css";
import "./style.css";

const place = document.getElementById("page") as HTMLElement;
const first = JSON.parse(document.getElementById("first")?.textContent ?? "");

const stream = new Stream(first, draw);

function draw(): void {
  render(<Page known={stream.known} />, place);
}

draw();
