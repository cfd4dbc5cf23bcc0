// The steps of an operator in a browser, in Debian's Chromium, headless: `node run.mjs STORY`.
//
// The story's daemon, its token and the folders are in the environment (see tests/dashboard.rs). An error
// throws, and ends the run with 1.

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
  "/", "/events", "/deliveries", "/dead-letters", "/decisions", "/replay", "/outbox", "/plugins", "/plugins/counter",
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
    assert.match(await text(page), /Wrong token/);
    await logIn(page, "/events?type=user.*");
    const [cookie] = await context.cookies();
    assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
    assert.ok(cookie.expires > 0 && cookie.expires < Date.now() / 1000 + 13 * 3600, JSON.stringify(cookie));
    assert.ok(!cookie.value.includes(token));
    await page.goto(base + "/audit");
    assert.match(await text(page), /refused: wrong token/);
    await page.click("text=Log out");
    assert.equal((await page.goto(base + "/")).status(), 401);
  },

  // Search finds events, and the URL contains the search.
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
    assert.match(await text(page), /No event matches/);
    for (const [query, said] of [
      ["since=tomorrow", /`tomorrow` is not a time/],
      ["type=user.creatd", /did you mean `user.created`/],
      ["source=scalekt", /did you mean `scalekit`/],
    ]) {
      await page.goto(base + "/events?" + query);
      assert.match(await text(page, ".error"), said);
    }
    // A number leads to what it counts.
    await page.goto(base + "/");
    const done = page.locator("a[href='/deliveries?state=done']").first();
    const count = Number(await done.innerText());
    await done.click();
    await page.waitForURL(/deliveries/);
    assert.equal(await page.locator("tbody tr").count(), Math.min(count, 50));
    // The page of an event shows its whole way.
    await page.goto(base + "/events?type=user.deleted");
    await page.locator("a.row").first().click();
    await page.waitForURL(/\/events\/scalekit\//);
    const story = await text(page);
    for (const part of ["Received", "Delivery dlv_", "Attempt 1", "Committed"]) assert.ok(story.includes(part), story);
    // The id of a delivery finds its event.
    const delivery = story.match(/dlv_[0-9]+/)[0];
    await page.goto(base + "/events");
    await page.fill("input[name=id]", delivery);
    await page.press("input[name=id]", "Enter");
    await page.waitForURL(/id=dlv_/);
    assert.equal(await page.locator("tbody tr").count(), 1);
  },

  // A group of dead letters is counted, then run again.
  async replay({ page }) {
    await logIn(page, "/");
    assert.match(await text(page, "#attention"), /3 dead letters not replayed/);
    await page.click("#attention a[href='/dead-letters']");
    await page.waitForURL(/dead-letters/);
    assert.equal(await page.locator("tbody tr").count(), 2);
    const group = page.locator("tbody tr", { hasText: "asked to refuse" });
    await group.getByText("Replay").click();
    await page.waitForURL(/\/replay\?/);
    assert.equal(await page.locator("#count").innerText(), "2");
    await page.getByRole("button", { name: "Replay 2" }).click();
    await page.waitForURL(/said=replayed/);
    assert.match(await text(page, ".said"), /2 new deliveries/);
    // They fail again, and the page shows that without a reload.
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
    assert.match(await text(page, ".error"), /not JSON/);
    assert.equal(await page.inputValue("#payload"), "{ no JSON", "what was typed is lost");
  },

  // A page changes as things happen, without being loaded again.
  async live({ page }) {
    await logIn(page, "/events");
    assert.match(await text(page), /No event yet/);
    await page.evaluate(() => (window.untouched = true));
    await page.locator("#feed", { hasText: "live" }).waitFor();
    await send({ type: "user.created", id: "evt_seen_live" });
    await page.getByText("evt_seen_live").waitFor();
    await page.locator("tbody .state.done", { hasText: "1 done" }).waitFor();
    assert.ok(await page.evaluate(() => window.untouched), "the page was loaded again");
    // An update keeps the text that somebody types.
    await page.fill("input[name=text]", "half a wo");
    await send({ type: "user.created", id: "evt_seen_later" });
    await page.getByText("evt_seen_later").waitFor();
    assert.equal(await page.inputValue("input[name=text]"), "half a wo");
  },

  // Times as people write and choose them; their own time is in the tooltip.
  async times({ browser }) {
    const context = await browser.newContext({ timezoneId: "Asia/Tokyo", locale: "en-GB" });
    const page = await context.newPage();
    await logIn(page, "/events");
    for (const [since, rows] of [["yesterday", data.events], ["today", data.events], ["2h", data.events], ["2999-01-01", 0]]) {
      await page.fill("input[name=since]", since);
      await page.press("input[name=since]", "Enter");
      await page.waitForURL((url) => url.searchParams.get("since") === since);
      assert.equal(await page.locator("tbody tr").count(), rows, since);
    }
    const at = page.locator("input[type=datetime-local]").first();
    await at.evaluate((picker) => {
      picker.value = "2026-01-02T03:04";
      picker.dispatchEvent(new Event("change"));
    });
    assert.equal(await page.inputValue("input[name=since]"), "2026-01-02 03:04");
    await page.goto(base + "/events");
    const time = page.locator("tbody time").first();
    const utc = new Date(await time.getAttribute("datetime"));
    const own = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long", timeZone: "Asia/Tokyo" });
    assert.equal(await time.getAttribute("title"), `${own.format(utc)} (Asia/Tokyo)`);
    assert.match(await time.innerText(), /^[0-9-]{10} [0-9:]{8}Z$/);
    assert.match(await text(page, "footer"), /Times are UTC.*Asia\/Tokyo/);
    await context.close();
    // Without a script the picker itself is the field that counts.
    const bare = await browser.newContext({ javaScriptEnabled: false });
    const plain = await bare.newPage();
    await logIn(plain, "/events");
    await plain.fill("input[name=since_at]", "2999-01-01T00:00");
    await plain.getByRole("button", { name: "Search" }).click();
    assert.match(await text(plain), /No event matches/);
    assert.equal(await plain.inputValue("input[name=since]"), "2999-01-01T00:00");
    await bare.close();
  },

  // The outbox lists dead items with their times and events. The operator sends one again, or all.
  async outbox({ page }) {
    await logIn(page, "/outbox?state=dead");
    const rows = page.locator("tbody tr");
    assert.equal(await rows.count(), 2);
    const row = rows.first();
    assert.ok((await row.locator("time").count()) >= 2, await row.innerText());
    await row.getByRole("button", { name: "Send again" }).click();
    await page.waitForURL(/said=resent/);
    assert.match(await text(page, ".said"), /1 item will be sent again/);
    await page.locator("tbody tr", { hasText: "sent" }).first().waitFor();
    await page.getByRole("button", { name: "Send the dead item again" }).click();
    await page.waitForURL(/said=resent/);
    await page.goto(base + "/outbox");
    await page.locator("tbody .state.sent").nth(1).waitFor();
    // From an item to its event, and back.
    await page.locator("a.row").first().click();
    await page.waitForURL(/\/events\/scalekit\/.*#dlv_/);
    await page.locator("ol.timeline a[href*='/outbox?id=']").first().click();
    await page.waitForURL(/\/outbox\?id=/);
    assert.equal(await rows.count(), 1);
  },

  // A missing path answers with a page for people, and with JSON for programs.
  async lost({ page }) {
    await logIn(page);
    for (const path of ["/nowhere", "/events/scalekit/evt_nowhere", "/plugins/countr", "/events/", "/v2"]) {
      const answer = await page.goto(base + path);
      assert.equal(answer.status(), 404, path);
      assert.match(answer.headers()["content-type"], /text\/html/, path);
      assert.match(await text(page, "h1"), /Not found/, path);
      assert.ok((await page.locator("nav a").count()) > 3, path);
    }
    await page.goto(base + "/plugins/countr");
    assert.match(await text(page), /did you mean `counter`/);
    for (const path of ["/v1/nowhere", "/v1/events/evt_nowhere"]) {
      const answer = await page.goto(base + path);
      assert.match(answer.headers()["content-type"], /application\/json/, path);
    }
  },

  // Nothing is wider than the screen, however long the words are, and however empty a page is.
  async widths({ browser }) {
    // Looked at by people, and not for the README: beside what is built, wherever the others go.
    const folder = join(modules, "..", "screenshots", data.name);
    mkdirSync(folder, { recursive: true });
    const problems = [];
    for (const [width, height] of [[1280, 900], [1024, 768], [390, 844]]) {
      const context = await browser.newContext({ viewport: { width, height } });
      const page = await context.newPage();
      await logIn(page);
      const paths = [...PAGES.filter((path) => !data.without.includes(path)), ...data.pages];
      for (const path of paths) {
        const answer = await page.goto(base + path);
        assert.ok([200, 404].includes(answer.status()), `${path}: ${answer.status()}`);
        for (const opened of [false, true]) {
          if (opened) await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
          const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          if (over > 0) problems.push(`${path}: ${over} px wider than ${width}${opened ? ", opened" : ""}`);
          // No column is shredded: the name of a column is on one line.
          const shreds = await page.evaluate(() => [...document.querySelectorAll("td.text, td.id")]
            .filter((cell) => cell.getBoundingClientRect().width < 90 && cell.innerText.length > 20)
            .map((cell) => cell.innerText.slice(0, 40)));
          if (shreds.length > 0) problems.push(`${path} at ${width}: shredded: ${shreds[0]}`);
          if (!opened) {
            const name = (path.split("?")[0].split("/").filter(Boolean).slice(0, 2).join("-") || "overview").slice(0, 40);
            await page.screenshot({ path: join(folder, `${name}-${width}.png`), fullPage: true });
          }
        }
      }
      await context.close();
    }
    assert.deepEqual(problems, []);
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
