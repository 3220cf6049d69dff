"use strict";
// The page of a manual group: finding people to add, and the import of a file.
(() => {
  const {api, say, element, flashLater, showFaults, clearFaults, busy, combo} = window.groupgate;

  // The dialog stays open for the next person; the page is loaded again when it
  // closes.
  const add = document.getElementById("member-add-form");
  if (add) {
    const input = document.getElementById("who"), said = document.getElementById("who-said");
    const dialog = add.closest("dialog");
    let chosen = null, found = [], added = [];

    input.addEventListener("input", () => {
      chosen = null;
      clearFaults(add);
    });
    combo(input, say("groups.people"), async (text) => {
      found = [];
      if (!text.trim()) return [];
      const res = await api("GET", add.dataset.people + "?limit=8&query=" + encodeURIComponent(text.trim()));
      if (!res.ok) { showFaults(add, res); return []; }
      found = res.body.items;
      return found.map((person) => ({value: person.user, note: [person.name, person.email].filter(Boolean).join(" · "), person}));
    }, {
      pick: true,
      shown: (n) => { said.textContent = !input.value.trim() ? "" : n ? say("groups.found", n) : say("groups.found_none"); },
      taken: ({person}) => {
        chosen = person;
        said.textContent = say("groups.chosen", person.name || person.email || person.user);
      },
    });
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
