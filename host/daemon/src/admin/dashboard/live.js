// Keeps a page as it would be if it were loaded now. Everything works without this, too.
"use strict";

const REST = 1000; // between two loads, in milliseconds
let wanted = false;
let busy = false;

// Loads the page again and puts its live parts in place of the old ones.
async function refresh() {
  if (busy || document.hidden) {
    wanted = true;
    return;
  }
  busy = true;
  wanted = false;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (answer.ok) {
      place(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    // The daemon restarts; the feed reconnects automatically.
  }
  setTimeout(() => {
    busy = false;
    if (wanted) refresh();
  }, REST);
}

function place(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    const focused = document.activeElement;
    const inside = part.contains(focused);
    // Keep the text that somebody types, and the parts that are open.
    if (!next || (inside && focused.matches("input, textarea, select"))) continue;
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    const key = inside ? focused.getAttribute("href") || focused.id : null;
    part.replaceChildren(...next.childNodes);
    ownTimes(part);
    part.querySelectorAll("details").forEach((one, at) => {
      if (open[at]) one.open = true;
    });
    if (key) {
      const again = [...part.querySelectorAll("a, button")].find(
        (one) => one.getAttribute("href") === key || one.id === key,
      );
      again?.focus();
    }
  }
  document.documentElement.dataset.fresh = String(Number(document.documentElement.dataset.fresh || 0) + 1);
}

if (document.querySelector("[data-live]")) {
  const feed = new EventSource("/v1/live");
  const state = document.getElementById("feed");
  feed.onopen = () => {
    if (state) state.textContent = "live";
  };
  feed.onerror = () => {
    if (state) state.textContent = "not live";
  };
  feed.addEventListener("event", refresh);
  feed.addEventListener("counts", refresh);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && wanted) refresh();
  });
  addEventListener("pagehide", () => feed.close());
}

// Times are shown in UTC; the reader's own time is in the tooltip.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
const own = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
function ownTimes(part) {
  for (const time of part.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.title = `${own.format(at)} (${zone})`;
  }
}
ownTimes(document);
const footer = document.getElementById("zone");
if (footer) footer.textContent = `Hover over one for your own time (${zone}).`;

// Write the choice of a picker into its field.
for (const picker of document.querySelectorAll("input[data-into]")) {
  picker.removeAttribute("name");
  picker.addEventListener("change", () => {
    const field = document.getElementById(picker.dataset.into);
    if (field && picker.value) field.value = picker.value.replace("T", " ");
  });
}

// `/` goes to the search, j and k go through the rows of a list.
addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
  if (pressed.target.matches("input, textarea, select")) {
    if (pressed.key === "Escape") pressed.target.blur();
    return;
  }
  if (pressed.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) {
      search.focus();
    } else {
      location.href = "/events";
    }
    pressed.preventDefault();
  } else if (pressed.key === "j" || pressed.key === "k") {
    const rows = [...document.querySelectorAll("a.row")];
    const at = rows.indexOf(document.activeElement);
    const next = rows[pressed.key === "j" ? at + 1 : Math.max(at - 1, 0)];
    next?.focus();
  }
});

// A test event of another type has another payload.
document.querySelector("select[data-go]")?.addEventListener("change", (chosen) => {
  location.href = `?type=${encodeURIComponent(chosen.target.value)}#test`;
});
