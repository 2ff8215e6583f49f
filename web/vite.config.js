// Each page one file with everything in it, for the bridge to embed. What becomes one file has one
// entry, so that each is built by itself: `--mode live` is the live feed's, without it the dashboard.

import { readFileSync } from "node:fs";
import { marked } from "marked";
import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

/** `docs/runbook.md` as HTML: who is woken has it in the page, whatever else is down. */
function runbook() {
  const name = "virtual:runbook";
  const renderer = {
    // An alert's id is its heading's anchor.
    heading({ tokens, depth, text }) {
      const id = text.toLowerCase().replace(/[^\w -]/g, "").replace(/ /g, "-");
      return `<h${depth + 1} id="${id}">${this.parser.parseInline(tokens)}</h${depth + 1}>\n`;
    },
    // What is beside the runbook in the repository is not in the page.
    link({ href, tokens }) {
      const text = this.parser.parseInline(tokens);
      return /^(#|https:)/.test(href) ? `<a href="${href}">${text}</a>` : text;
    },
    // Both scroll on a narrow screen, so a keyboard must reach them.
    table(table) {
      const html = marked.Renderer.prototype.table.call(this, table);
      return `<div class="scroll" tabindex="0" role="group" aria-label="Table">${html}</div>\n`;
    },
    code({ text }) {
      const escaped = text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
      return `<pre tabindex="0">${escaped}</pre>\n`;
    },
  };
  return {
    name: "runbook",
    resolveId: (id) => (id === name ? `\0${name}` : undefined),
    load(id) {
      if (id !== `\0${name}`) return undefined;
      const file = new URL("../docs/runbook.md", import.meta.url);
      marked.use({ renderer });
      const html = marked.parse(readFileSync(file, "utf8").replace(/^# .*\n/, ""));
      return `export default ${JSON.stringify(html)};`;
    },
  };
}

export default defineConfig(({ mode }) => ({
  plugins: [runbook(), viteSingleFile({ removeViteModuleLoader: true })],
  // Replaced in each answer: `src/http/page.rs`.
  html: { cspNonce: "__NONCE__" },
  // The folder is in git for build.rs to watch, and has a .gitignore in it.
  build: {
    target: "es2022",
    emptyOutDir: false,
    rolldownOptions: { input: mode === "live" ? "live.html" : "index.html" },
  },
}));
