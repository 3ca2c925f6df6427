// What makes the console lively; every page works without it.
"use strict";

(() => {
  const seconds = (from, to) => Math.round((to - from) / 1000);

  const inWords = (left) => {
    const [hours, minutes] = [Math.floor(left / 3600), Math.floor((left % 3600) / 60)];
    const rest = String(left % 60).padStart(hours || minutes ? 2 : 1, "0");
    if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min ${rest} s`;
    return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
  };

  const clock = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const [thisYear, anyYear] = [new Intl.DateTimeFormat(undefined, clock), new Intl.DateTimeFormat(undefined, { ...clock, year: "numeric" })];
  const inZone = (at) => (at.getFullYear() === new Date().getFullYear() ? thisYear : anyYear).format(at);

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-zoned])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      time.dataset.zoned = "";
      time.textContent = inZone(at);
    }
    for (const label of root.querySelectorAll("tspan[data-at]")) {
      const form = label.dataset.as === "day" ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" };
      label.textContent = new Intl.DateTimeFormat(undefined, form).format(new Date(Number(label.dataset.at)));
    }
    for (const bar of root.querySelectorAll("title[data-at]:not([data-zoned])")) {
      bar.dataset.zoned = "";
      bar.textContent = `${inZone(new Date(Number(bar.dataset.at)))} here, ${bar.textContent}`;
    }
    tick();
  }

  // How far this computer's clock is behind the server's, ms: what is due is due by the latter.
  let behind = 0;

  function tick() {
    for (const time of document.querySelectorAll("time[data-countdown]")) {
      const left = seconds(Date.now() + behind, new Date(time.dateTime).getTime());
      time.textContent = left > 0 ? `in ${inWords(left)}` : "due now";
    }
  }

  function showButtons(root) {
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });

  // A form is sent once, however often its button is clicked.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent !== undefined) {
      event.preventDefault();
      return;
    }
    if (form.method !== "post") return;
    form.dataset.sent = "";
    // Later: a button that is disabled now would not be sent along with its value.
    setTimeout(() => {
      for (const button of form.querySelectorAll("button:not([type=button])")) button.disabled = true;
    });
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      for (const button of form.querySelectorAll("button")) button.disabled = false;
    }
  });

  // Fields for times mean UTC; beside them stands what that is here.
  function showZone(field) {
    const hint = field.id && document.querySelector(`[data-zone-of="${field.id}"]`);
    if (!hint) return;
    const at = new Date(`${field.value}Z`);
    hint.textContent = Number.isNaN(at.getTime()) ? "" : `${inZone(at)} here`;
  }
  document.addEventListener("input", (event) => showZone(event.target));

  // Live parts: the page itself is fetched again, and what changed in them is put in.
  const shown = new Map();

  // Dates are in whole seconds: on average half a second has passed.
  function setClock(date) {
    const there = new Date(date).getTime() + 500;
    const apart = there - Date.now();
    behind = Number.isNaN(there) || Math.abs(apart) < 2000 ? 0 : apart;
  }

  // What has the focus in a part, so that it, or what stands for it after the part was replaced, has it again.
  const mayFocus = "a[href], button, input, select, textarea, summary, [tabindex]";
  const signOf = (each) => [each.tagName, each.id, each.getAttribute("href"), each.name, each.form?.getAttribute("action"), each.getAttribute("aria-label"), each.matches("button, summary") ? each.textContent : ""].join("|");

  function focusAgain(part, sign) {
    const again = [...part.querySelectorAll(mayFocus)].find((each) => signOf(each) === sign);
    // What is gone leaves its part behind: the way to the rest of the page is short from there.
    if (!again) part.tabIndex = -1;
    (again || part).focus({ preventScroll: true });
  }

  function keysOf(part) {
    return new Set([...part.querySelectorAll("[data-key]")].map((row) => row.dataset.key));
  }

  async function refresh(parts) {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      location.reload();
      return false;
    }
    setClock(answer.headers.get("Date"));
    if (!answer.ok) return true;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts) {
      const fresh = page.getElementById(part.id);
      if (!fresh || fresh.innerHTML === shown.get(part.id)) continue;
      const focused = part.contains(document.activeElement) && part !== document.activeElement ? signOf(document.activeElement) : "";
      const opened = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
      const known = keysOf(part);
      shown.set(part.id, fresh.innerHTML);
      part.replaceChildren(...fresh.childNodes);
      let added = 0;
      for (const row of part.querySelectorAll("[data-key]")) {
        if (known.has(row.dataset.key)) continue;
        row.classList.add("fresh");
        added += 1;
      }
      for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
      if (focused) focusAgain(part, focused);
      const said = document.querySelector(`[data-said-of="${part.id}"]`);
      if (said && added && known.size) said.textContent = `${added} new`;
      showTimes(part);
      showButtons(part);
    }
    return parts.some((part) => page.getElementById(part.id)?.hasAttribute("data-live"));
  }

  function live() {
    const parts = [...document.querySelectorAll("[data-live]")];
    if (!parts.length) return;
    const every = Math.min(...parts.map((part) => Number(part.dataset.live)));
    for (const part of parts) shown.set(part.id, part.innerHTML);
    const again = async () => {
      let goOn = true;
      if (!document.hidden && !document.querySelector("form[data-sent]")) {
        try {
          goOn = await refresh(parts);
        } catch {
          // The service is away for a moment: look again.
        }
      }
      if (goOn) setTimeout(again, every);
    };
    setTimeout(again, every);
  }

  live();
  for (const hint of document.querySelectorAll("[data-zone-of]")) showZone(document.getElementById(hint.dataset.zoneOf));
  showTimes(document);
  showButtons(document);
  setInterval(tick, 1000);
})();
