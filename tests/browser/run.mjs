// What an operator does in a browser, in Debian's Chromium, headless: `node run.mjs STORY`.
//
// The story's daemon, its token and the folders come in the environment (see tests/dashboard.rs). What is
// not as it should be throws, and ends the run with 1.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { URL: base, TOKEN: token, MODULES: modules, SHOTS: shots, DATA } = process.env;
const data = JSON.parse(DATA || "{}");
const require = createRequire(join(modules, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const PAGES = [
  "/", "/events", "/deliveries", "/dead-letters", "/replay", "/outbox", "/plugins", "/plugins/counter",
  "/sources", "/sources/scalekit", "/audit",
];

async function logIn(page, next = "/") {
  await page.goto(base + next);
  await page.fill("#token", token);
  await page.click("button");
  await page.waitForURL(base + next);
}

// A test event, sent as a program would.
async function send(body) {
  const answer = await fetch(`${base}/v1/sources/scalekit/test`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.text());
}

const text = (page, selector = "main") => page.locator(selector).innerText();

const stories = {
  // The way in, and out again; what is open to nobody.
  async login({ context, page }) {
    for (const path of PAGES) {
      const answer = await page.goto(base + path);
      assert.equal(answer.status(), 401, path);
      assert.equal(await page.locator("#token").count(), 1, path);
      assert.ok(!(await page.content()).includes("counter.wasm"), path);
    }
    await page.fill("#token", "wrong");
    await page.click("button");
    assert.match(await text(page), /not the token/);
    await logIn(page, "/events?type=user.*");
    const [cookie] = await context.cookies();
    assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
    assert.ok(cookie.expires > 0 && cookie.expires < Date.now() / 1000 + 13 * 3600, JSON.stringify(cookie));
    assert.ok(!cookie.value.includes(token));
    await page.goto(base + "/audit");
    assert.match(await text(page), /refused: a wrong token/);
    await page.click("text=Log out");
    assert.equal((await page.goto(base + "/")).status(), 401);
  },

  // Events are found, and the search stands in the URL.
  async search({ page }) {
    await logIn(page, "/events");
    assert.equal(await page.locator("tbody tr").count(), data.events);
    await page.fill("input[name=text]", "ADA7@");
    await page.press("input[name=text]", "Enter");
    await page.waitForURL(/text=ADA7/);
    assert.equal(await page.locator("tbody tr").count(), 1);
    await page.goto(base + "/events?type=user.deleted");
    assert.equal(await page.inputValue("input[name=type]"), "user.deleted");
    const rows = await page.locator("tbody tr").count();
    assert.ok(rows > 0 && rows < data.events, `${rows}`);
    await page.goto(base + "/events?organization=nobody");
    assert.match(await text(page), /No event is like that/);
    await page.goto(base + "/events?since=yesterday");
    assert.match(await text(page, ".error"), /yesterday/);
    // A number leads to what it counts.
    await page.goto(base + "/");
    const done = page.locator("a[href='/deliveries?state=done']").first();
    const count = Number(await done.innerText());
    await done.click();
    await page.waitForURL(/deliveries/);
    assert.equal(await page.locator("tbody tr").count(), Math.min(count, 50));
    // And one event is told from end to end.
    await page.goto(base + "/events?type=user.deleted");
    await page.locator("a.row").first().click();
    await page.waitForURL(/\/events\/scalekit\//);
    const story = await text(page);
    for (const part of ["Taken in", "Delivery dlv_", "Attempt 1", "Committed"]) assert.ok(story.includes(part), story);
  },

  // A group of dead letters is counted, then run again.
  async replay({ page }) {
    await logIn(page, "/");
    assert.match(await text(page, "#attention"), /3 deliveries were given up/);
    await page.click("#attention a[href='/dead-letters']");
    await page.waitForURL(/dead-letters/);
    assert.equal(await page.locator("tbody tr").count(), 2);
    const group = page.locator("tbody tr", { hasText: "asked to refuse" });
    await group.getByText("Run again").click();
    await page.waitForURL(/\/replay\?/);
    assert.equal(await page.locator("#count").innerText(), "2");
    await page.getByRole("button", { name: "Run 2 again" }).click();
    await page.waitForURL(/said=replayed/);
    assert.match(await text(page, ".said"), /2 new deliveries/);
    // They die again, which the page hears of by itself.
    await page.locator("tbody tr", { hasText: "asked to refuse" }).getByRole("link", { name: "4", exact: true }).waitFor();
  },

  // Pause and resume, with a click.
  async pause({ page }) {
    await logIn(page, "/plugins");
    await page.click("a.row");
    await page.waitForURL(/plugins\/counter/);
    await page.getByRole("button", { name: "Pause" }).click();
    await page.waitForURL(/said=paused/);
    assert.match(await text(page), /paused by an operator/);
    await send({ type: "user.created" });
    await page.locator("a[href='/deliveries?plugin=counter&state=held']", { hasText: "1" }).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.waitForURL(/said=resumed/);
    await page.locator("a[href='/deliveries?plugin=counter&state=held']", { hasText: "0" }).waitFor();
    await page.goto(base + "/audit");
    const told = await text(page);
    assert.ok(told.includes("pause plugin") && told.includes("resume plugin") && told.includes("session "), told);
  },

  // The same without a script.
  async bare({ browser }) {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await logIn(page, "/plugins/counter");
    for (const [name, state] of [["Pause", "held"], ["Resume", "serving"]]) {
      await page.getByRole("button", { name }).click();
      assert.equal(await page.locator(`#plugin .state.${state}`).first().innerText(), state);
    }
    await page.goto(base + "/sources/scalekit?type=user.deleted");
    await page.getByRole("button", { name: "Sign and send" }).click();
    assert.match(await text(page, "#sent"), /answered 200/);
  },

  // A test event: its type is chosen, its payload edited.
  async test_event({ page }) {
    await logIn(page, "/sources/scalekit");
    await page.selectOption("select[name=type]", "user.deleted");
    await page.waitForURL(/type=user.deleted/);
    const payload = JSON.parse(await page.inputValue("#payload"));
    assert.equal(payload.type, "user.deleted");
    payload.data = { log: "edited in a browser" };
    await page.fill("#payload", JSON.stringify(payload));
    await page.click("#send");
    await page.locator("#sent").waitFor();
    assert.match(await text(page, "#sent"), /answered 200/);
    await page.click("#sent a");
    await page.waitForURL(/\/events\/scalekit\//);
    await page.getByText("edited in a browser").first().waitFor();
    await page.getByText("Committed").waitFor();
    await page.goto(base + "/sources/scalekit");
    await page.fill("#payload", "{ no JSON");
    await page.click("#send");
    assert.match(await text(page, ".error"), /no JSON/);
    assert.equal(await page.inputValue("#payload"), "{ no JSON", "what was typed is lost");
  },

  // A page changes as things happen, without being loaded again.
  async live({ page }) {
    await logIn(page, "/events");
    assert.match(await text(page), /No event has come yet/);
    await page.evaluate(() => (window.untouched = true));
    await page.locator("#feed", { hasText: "live" }).waitFor();
    await send({ type: "user.created", id: "evt_seen_live" });
    await page.getByText("evt_seen_live").waitFor();
    await page.locator("tbody .state.done", { hasText: "1 done" }).waitFor();
    assert.ok(await page.evaluate(() => window.untouched), "the page was loaded again");
    // What somebody types stays.
    await page.fill("input[name=text]", "half a wo");
    await send({ type: "user.created", id: "evt_seen_later" });
    await page.getByText("evt_seen_later").waitFor();
    assert.equal(await page.inputValue("input[name=text]"), "half a wo");
  },

  // All by keys.
  async keyboard({ page }) {
    await logIn(page, "/");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    await page.keyboard.press("/");
    await page.waitForURL(/\/events$/);
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.name), "text");
    await page.keyboard.type("example.com");
    await page.keyboard.press("Enter");
    await page.waitForURL(/text=example.com/);
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("k");
    const seen = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(seen, "none", "what is focused can't be seen");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/events\/scalekit\//);
  },

  // Every page in light, dark and on a phone: nothing serious for axe, nothing that the policy stops, and
  // no page wider than the phone. The pages of the README are photographed.
  async looks({ browser }) {
    if (shots) mkdirSync(shots, { recursive: true });
    const event = `/events/scalekit/${data.event}`;
    const photographed = { "/": "overview", [event]: "event", "/dead-letters": "dead-letters" };
    const problems = [];
    const backs = [];
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ colorScheme, viewport: { width: 1180, height: 860 }, bypassCSP: false });
      const page = await context.newPage();
      page.on("console", (said) => {
        if (said.type() === "error" && !/401|409/.test(said.text())) problems.push(`${page.url()}: ${said.text()}`);
      });
      page.on("pageerror", (error) => problems.push(`${page.url()}: ${error}`));
      await logIn(page);
      backs.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      for (const path of [...PAGES, event, "/events?text=nowhere"]) {
        const answer = await page.goto(base + path);
        assert.equal(answer.status(), 200, path);
        if (shots && photographed[path]) {
          await page.screenshot({ path: join(shots, `${photographed[path]}-${colorScheme}.png`) });
        }
        await page.evaluate(axe);
        const found = await page.evaluate(() => globalThis.axe.run());
        for (const violation of found.violations.filter((one) => ["serious", "critical"].includes(one.impact))) {
          const where = violation.nodes.slice(0, 3).map((node) => node.html).join("\n  ");
          problems.push(`${path} (${colorScheme}): ${violation.id}: ${violation.help}\n  ${where}`);
        }
        await page.setViewportSize({ width: 390, height: 800 });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (over > 0) problems.push(`${path}: ${over} px too wide for a phone`);
        await page.setViewportSize({ width: 1180, height: 860 });
      }
      await context.close();
    }
    assert.notEqual(backs[0], backs[1], "dark mode looks like light");
    assert.deepEqual(problems, []);
  },
};

const story = process.argv[2];
assert.ok(stories[story], `no story ${story}`);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  headless: true,
  chromiumSandbox: false,
  args: [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  ],
});
const context = await browser.newContext();
context.setDefaultTimeout(45_000);
const page = await context.newPage();
try {
  await stories[story]({ browser, context, page });
} catch (error) {
  console.error(`at ${page.url()}:\n${(await page.locator("body").innerText().catch(() => "")).slice(0, 2000)}`);
  throw error;
} finally {
  await browser.close();
}
