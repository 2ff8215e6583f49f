// A browser for the tests of the bridge: one command a line on stdin, as JSON, one answer a line on
// stdout. What is to be seen is the tests' matter (tests/it/dashboard.rs, tests/it/live/page.rs); this only looks.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

// Below what the tests wait for an answer: a busy machine may take more than Playwright's 30 s.
const timeout = 120_000;

const browser = await chromium.launch({
  timeout,
  executablePath: process.env.DATA_BRIDGE_TEST_CHROMIUM ?? "/usr/bin/chromium",
  // As root, and in containers, there is neither a sandbox to be had nor much shared memory.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
// Whoever asks for a token gets it as a browser gives it, as a password.
const password = process.env.DATA_BRIDGE_TEST_TOKEN;
const page = await browser.newPage({
  viewport: { width: 1280, height: 900 },
  ...(password && { httpCredentials: { username: "anybody", password } }),
});
page.setDefaultTimeout(timeout);
/** What the page complained of: a broken script, or something that its policy forbade. */
const complaints = [];
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("console", (message) => {
  // A bridge that is away is not the page's fault.
  if (message.type() === "error" && !/ERR_|status of 503/.test(message.text())) complaints.push(message.text());
});

const commands = {
  open: async ({ url }) => void (await page.goto(url, { waitUntil: "domcontentloaded" })),

  /** Waits until the text of an element matches, and gives all of it. */
  async until({ selector, pattern, within }) {
    const wanted = { selector, pattern };
    await page.waitForFunction(
      ({ selector, pattern }) => {
        const found = [...document.querySelectorAll(selector)].map((element) => element.innerText);
        return new RegExp(pattern, "s").test(found.join("\n"));
      },
      wanted,
      { timeout: within, polling: 100 },
    );
    return (await page.locator(selector).allInnerTexts()).join("\n");
  },

  text: async ({ selector }) => (await page.locator(selector).allInnerTexts()).join("\n"),

  fill: async ({ selector, text }) => void (await page.locator(selector).fill(text)),

  click: async ({ selector }) => void (await page.locator(selector).click()),

  press: async ({ key }) => void (await page.keyboard.press(key)),

  /** Where the keyboard is. */
  focused: () =>
    page.evaluate(() => {
      const at = document.activeElement;
      return at?.getAttribute("aria-label") ?? at?.labels?.[0]?.textContent ?? at?.textContent ?? "";
    }),

  isVisible: ({ selector }) => page.locator(selector).first().isVisible(),

  look: async ({ theme, width }) => {
    await page.emulateMedia({ colorScheme: theme });
    await page.setViewportSize({ width, height: 900 });
  },

  /** What makes the page itself scroll sideways. */
  tooWide: () =>
    page.evaluate(() => {
      if (document.documentElement.scrollWidth <= innerWidth) return [];
      const wide = [...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > innerWidth);
      return wide.filter((one) => !one.closest(".scroll, pre")).map((one) => one.outerHTML.slice(0, 100));
    }),

  /** What a person who sees little, or uses no mouse, would stumble over badly. */
  async axe() {
    await page.evaluate(() => delete window.axe);
    // Past the page's policy, which lets nothing in from outside.
    const session = await page.context().newCDPSession(page);
    const { readFileSync } = await import("node:fs");
    await session.send("Runtime.evaluate", { expression: readFileSync(axe, "utf8") });
    await session.detach();
    const { violations } = await page.evaluate(() => window.axe.run());
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  },

  picture: async ({ path, height }) => {
    const { width } = page.viewportSize();
    await page.setViewportSize({ width, height });
    await page.evaluate(() => scrollTo(0, 0));
    await page.waitForTimeout(300); // a drawing settles in a frame; nothing is judged by it
    await page.screenshot({ path });
    await page.setViewportSize({ width, height: 900 });
  },

  complaints: () => complaints,

  /** Waits until there is such a complaint. */
  async complains({ pattern, within }) {
    const end = Date.now() + within;
    while (!complaints.some((complaint) => new RegExp(pattern).test(complaint))) {
      if (Date.now() > end) throw new Error(`no complaint of ${pattern}: ${complaints}`);
      await page.waitForTimeout(100);
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...arguments_ } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await commands[command](arguments_)) ?? null };
  } catch (error) {
    const shown = await page.locator("body").innerText().catch(() => "nothing");
    answer = { error: `${command} ${JSON.stringify(arguments_)}: ${error.message}\nThe page:\n${shown}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
