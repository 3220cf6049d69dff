"use strict";
// The page of a manual group: finding people to add, and the import of a file.
(() => {
  const {api, say, element, flashLater, showFaults, clearFaults, busy} = window.groupgate;

  // A combobox (ARIA 1.2) over the API's search for people. The dialog stays
  // open for the next one; the page is loaded again when it closes.
  const add = document.getElementById("member-add-form");
  if (add) {
    const input = document.getElementById("who"), list = document.getElementById("who-list"), said = document.getElementById("who-said");
    const dialog = add.closest("dialog");
    let chosen = null, found = [], at = -1, asked = 0, timer = 0, added = [];

    const close = () => {
      list.hidden = true;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
      at = -1;
    };
    const mark = (next) => {
      at = next;
      [...list.children].forEach((o, i) => o.setAttribute("aria-selected", String(i === at)));
      input.setAttribute("aria-activedescendant", list.children[at].id);
      list.children[at].scrollIntoView({block: "nearest"});
    };
    const choose = (person) => {
      chosen = person;
      input.value = person.user;
      said.textContent = say("groups.chosen", person.name || person.email || person.user);
      close();
    };
    const show = (items) => {
      found = items;
      at = -1;
      input.removeAttribute("aria-activedescendant");
      list.replaceChildren(...items.map((person, i) => {
        const more = [person.name, person.email].filter(Boolean).join(" · ");
        const option = element("li", {role: "option", id: "who-" + i, "aria-selected": "false"},
          element("b", {}, person.user), more ? element("span", {class: "soft"}, more) : null);
        option.addEventListener("mousedown", (e) => { e.preventDefault(); choose(person); });
        return option;
      }));
      list.hidden = items.length === 0;
      input.setAttribute("aria-expanded", String(items.length > 0));
      said.textContent = items.length ? say("groups.found", items.length) : say("groups.found_none");
    };
    const ask = async () => {
      const mine = ++asked, query = input.value.trim();
      if (!query) { close(); said.textContent = ""; return; }
      const res = await api("GET", add.dataset.people + "?limit=8&query=" + encodeURIComponent(query));
      if (mine !== asked) return;
      if (res.ok) show(res.body.items); else showFaults(add, res);
    };
    input.addEventListener("input", () => {
      chosen = null;
      clearFaults(add);
      clearTimeout(timer);
      timer = setTimeout(ask, 150);
    });
    input.addEventListener("keydown", (e) => {
      const n = list.hidden ? 0 : found.length;
      if (e.key === "ArrowDown" || e.key === "ArrowUp") {
        e.preventDefault();
        if (n) mark(e.key === "ArrowDown" ? (at + 1) % n : (at + n + (at < 0 ? 0 : -1)) % n); else ask();
      } else if (e.key === "Enter" && n && at >= 0) {
        e.preventDefault();
        choose(found[at]);
      } else if (e.key === "Escape" && n) {
        e.preventDefault(); // the list closes, not the dialog
        close();
      }
    });
    input.addEventListener("blur", close);
    add.addEventListener("submit", (e) => {
      e.preventDefault();
      busy(add, async () => {
        clearFaults(add);
        const typed = input.value.trim().toLowerCase();
        const person = chosen ?? found.find((p) => p.user.toLowerCase() === typed);
        if (!person) { showFaults(add, {status: 422, body: {errors: [{key: "who", message: say("groups.choose")}]}}); return; }
        const res = await api("PUT", add.dataset.members + "/" + encodeURIComponent(person.id));
        if (!res.ok) { showFaults(add, res); return; }
        added.push(person.user);
        input.value = "";
        chosen = null;
        found = [];
        close();
        said.textContent = say("groups.added", added.join(", "));
      }).then(() => input.focus());
    });
    dialog.addEventListener("close", () => {
      if (!added.length) return;
      flashLater(say("groups.added", added.join(", ")));
      location.reload();
    });
  }

  // The import: first what would happen, then the same file for good.
  const form = document.getElementById("member-import-form");
  if (form) {
    const file = document.getElementById("file"), said = document.getElementById("import-said");
    const check = document.getElementById("import-check"), go = document.getElementById("import-go");
    const maxShown = 50;

    // send is XMLHttpRequest: fetch does not say how far an upload is.
    const send = (url, body, progress) => new Promise((done) => {
      const x = new XMLHttpRequest();
      x.open("POST", url);
      x.setRequestHeader("Content-Type", "text/csv");
      x.setRequestHeader("Accept", "application/json");
      x.upload.addEventListener("progress", (e) => {
        if (e.lengthComputable && e.loaded < e.total) { progress.max = e.total; progress.value = e.loaded; } else progress.removeAttribute("value");
      });
      const end = () => {
        if (x.status === 401) location.reload();
        let data = null;
        try { data = JSON.parse(x.responseText); } catch { data = {detail: say(x.status ? "unreadable" : "unreachable")}; }
        done({ok: x.status >= 200 && x.status < 300, status: x.status, body: data});
      };
      x.addEventListener("load", end);
      x.addEventListener("error", end);
      x.addEventListener("abort", end);
      x.send(body);
    });
    const reset = () => { go.hidden = true; check.hidden = false; };
    const faults = (all) => {
      const rows = all.slice(0, maxShown).map((f) => element("tr", {}, element("td", {class: "num"}, String(f.line)), element("td", {lang: "en"}, f.message)));
      said.replaceChildren(
        element("p", {class: "alert"}, say("groups.faults", all.length)),
        element("div", {class: "scroll groups-faults", tabindex: "0", role: "region", "aria-label": say("groups.faults", all.length)}, element("table", {},
          element("thead", {}, element("tr", {}, element("th", {scope: "col", class: "num"}, say("groups.line")), element("th", {scope: "col"}, say("groups.fault")))),
          element("tbody", {}, ...rows))),
        all.length > maxShown ? element("p", {class: "soft"}, say("groups.more_faults", all.length - maxShown)) : "");
    };
    const run = (url, text) => busy(form, async () => {
      clearFaults(form);
      const progress = element("progress", {"aria-label": text});
      said.replaceChildren(element("p", {class: "groups-progress"}, text, " ", progress));
      const res = await send(url, file.files[0], progress);
      if (res.ok) return res.body;
      if (res.body?.faults?.length) { faults(res.body.faults); return null; }
      said.replaceChildren();
      showFaults(form, res);
      return null;
    });
    file.addEventListener("change", () => { said.replaceChildren(); clearFaults(form); reset(); });
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      if (check.hidden || !file.files.length) return;
      const body = await run(form.dataset.import + "?dry_run=true", say("groups.checking"));
      if (!body) return;
      said.replaceChildren(
        element("p", {class: "flash"}, say("groups.would", body.lines, body.added)),
        element("p", {class: "soft"}, say("groups.nothing_yet")));
      check.hidden = true;
      go.hidden = false;
      go.focus();
    });
    go.addEventListener("click", async () => {
      const body = await run(form.dataset.import, say("groups.importing"));
      if (!body) { reset(); return; }
      flashLater(say("groups.imported", body.lines, body.added));
      location.reload();
    });
    form.closest("dialog").addEventListener("close", () => { form.reset(); said.replaceChildren(); clearFaults(form); reset(); });
  }
})();
