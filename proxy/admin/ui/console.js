"use strict";
// What every page of the console shares: forms that call the API, dialogs, and
// saying what came of it. Without this script pages can be read, not changed.
(() => {
  const words = JSON.parse(document.body.dataset.words);
  const say = (key, ...values) => values.reduce((text, v) => text.replace(/%[sd]/, v), words[key] ?? key);

  // api calls an endpoint and answers {ok, status, body, etag}. It never throws.
  async function api(method, url, body, headers = {}, signal = undefined) {
    const how = {method, headers: {Accept: "application/json", ...headers}, credentials: "same-origin", signal};
    if (body !== undefined) {
      how.body = typeof body === "string" ? body : JSON.stringify(body);
      how.headers["Content-Type"] ??= "application/json";
    }
    try {
      const res = await fetch(url, how);
      if (res.status === 401) {
        location.reload(); // the session of the console is over; the page leads to the sign-in
        return {ok: false, status: 401, body: {detail: say("signed_out")}};
      }
      const text = await res.text();
      let data = null;
      try { data = text ? JSON.parse(text) : null; } catch { data = {detail: say("unreadable")}; }
      if (res.status === 403 && data?.error === "forbidden") data = {detail: say("not_admitted")}; // the proxy's words
      if (res.status === 409 && data?.type === "urn:groupgate:problem:last-way") {
        if (await agreed()) return await api(method, url + (url.includes("?") ? "&" : "?") + "confirm=last-way", body, headers);
        data = {detail: say("last_way.kept")};
      }
      return {ok: res.ok, status: res.status, body: data, etag: res.headers.get("ETag")};
    } catch {
      return {ok: false, status: 0, body: {detail: say("unreachable")}};
    }
  }

  // agreed asks whether to do what takes the last way into the console away.
  function agreed() {
    return new Promise((resolve) => {
      const yes = element("button", {class: "danger", type: "button"}, say("last_way.yes"));
      const no = element("button", {type: "button"}, say("last_way.no"));
      const dialog = element("dialog", {"aria-labelledby": "last-way"}, element("div", {class: "pad"},
        element("h2", {id: "last-way"}, say("last_way.title")), element("p", {}, say("last_way.text")), element("p", {class: "actions"}, no, yes)));
      let answer = false;
      yes.addEventListener("click", () => { answer = true; dialog.close(); });
      no.addEventListener("click", () => dialog.close());
      const behind = [...document.querySelectorAll("dialog[open]")];
      behind.forEach((d) => d.classList.add("hidden"));
      dialog.addEventListener("close", () => {
        behind.forEach((d) => d.classList.remove("hidden"));
        dialog.remove();
        resolve(answer);
      });
      document.body.append(dialog);
      dialog.showModal();
      no.focus();
    });
  }

  // reason is a problem document (RFC 9457) in words.
  function reason(res) {
    const p = res.body ?? {};
    const own = {412: say("changed_meanwhile"), 503: say("unavailable")}[res.status];
    let text = own ?? p.detail ?? p.title ?? say("failed");
    if (p.errors?.length) text = p.errors.map((e) => e.key ? e.key + ": " + e.message : e.message).join("; ");
    return p.instance ? text + " (" + p.instance + ")" : text;
  }

  function element(tag, attributes = {}, ...children) {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value == null) continue;
      if (name === "class") e.className = value; else e.setAttribute(name, value === true ? "" : value);
    }
    e.append(...children.filter((c) => c != null));
    return e;
  }

  // flash says something at the top of the page, now or after the next load.
  function flash(text) {
    document.getElementById("flash").replaceChildren(element("p", {class: "flash"}, text));
  }
  function flashLater(text) { try { sessionStorage.setItem("flash", text); } catch { /* then it is not said */ } }
  try {
    const said = sessionStorage.getItem("flash");
    if (said) { sessionStorage.removeItem("flash"); flash(said); }
  } catch { /* storage may be off */ }

  // showFaults puts each fault beside its field, and the rest above the form.
  function showFaults(form, res) {
    clearFaults(form);
    const rest = [];
    let first = null;
    for (const e of res.status === 422 ? res.body?.errors ?? [] : []) {
      const input = form.elements[e.key];
      if (!(input instanceof HTMLElement) || input.type === "hidden") { rest.push(e.key + ": " + e.message); continue; }
      const id = input.id + "-error";
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", [input.getAttribute("aria-describedby"), id].filter(Boolean).join(" "));
      input.closest(".field")?.append(element("p", {class: "error", id}, e.message));
      first ??= input;
    }
    if (rest.length || !first) {
      const text = rest.length ? rest.join("; ") : reason(res);
      form.prepend(element("p", {class: "alert", role: "alert", tabindex: "-1"}, text));
      if (!first) form.firstElementChild.focus();
    }
    first?.focus();
  }
  function clearFaults(form) {
    form.querySelectorAll(".error,.alert[role=alert]").forEach((e) => e.remove());
    form.querySelectorAll("[aria-invalid]").forEach((e) => {
      e.removeAttribute("aria-invalid");
      const ids = (e.getAttribute("aria-describedby") ?? "").split(" ").filter((i) => i && i !== e.id + "-error");
      ids.length ? e.setAttribute("aria-describedby", ids.join(" ")) : e.removeAttribute("aria-describedby");
    });
  }

  // values of a form as the API takes them: text, or true and false.
  function values(form) {
    const out = {};
    for (const e of form.elements) {
      if (!e.name || e.disabled || e.type === "radio" && !e.checked) continue;
      out[e.name] = e.type === "checkbox" ? e.checked : e.value;
    }
    return out;
  }

  // busy keeps a form from being sent twice.
  async function busy(form, work) {
    if (form.dataset.busy) return;
    form.dataset.busy = "1";
    const buttons = [...form.querySelectorAll("button")];
    buttons.forEach((b) => { b.disabled = true; });
    try { return await work(); } finally {
      delete form.dataset.busy;
      buttons.forEach((b) => { b.disabled = false; });
    }
  }

  // A form with data-api calls the API: data-method, data-tag (If-Match),
  // data-said (what to say when it is done), data-then (where to go; default:
  // this page again). {field} in data-api and data-then is what the field holds.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || !form.dataset.api) return;
    event.preventDefault();
    const data = values(form);
    const fill = (text) => text.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(data[name]));
    busy(form, async () => {
      clearFaults(form);
      const method = form.dataset.method ?? "POST";
      const headers = form.dataset.tag ? {"If-Match": form.dataset.tag} : {};
      const body = method === "DELETE" || method === "PUT" && !("body" in form.dataset) ? undefined : data;
      const res = await api(method, fill(form.dataset.api), body, headers);
      if (!res.ok) { showFaults(form, res); return; }
      if (form.dataset.said) flashLater(form.dataset.said);
      form.dataset.then ? location.assign(fill(form.dataset.then)) : location.reload();
    });
  });

  // [data-open] opens the dialog of that id, [data-close] closes its own. The
  // values of data-set-NAME are put into the dialog's fields, and into its
  // elements with data-show=NAME.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest?.("[data-open]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.open);
      for (const [key, value] of Object.entries(opener.dataset)) {
        if (!key.startsWith("set")) continue;
        const name = key.slice(3).replace(/^[A-Z]/, (c) => c.toLowerCase());
        dialog.querySelectorAll(`[name="${name}"]`).forEach((e) => { e.value = value; });
        dialog.querySelectorAll(`[data-show="${name}"]`).forEach((e) => { e.textContent = value; });
      }
      dialog.querySelectorAll("form").forEach(clearFaults);
      dialog.showModal();
      dialog.dispatchEvent(new CustomEvent("opened", {detail: opener}));
    }
    if (event.target.closest?.("[data-close]")) event.target.closest("dialog")?.close();
  });

  // An address that ends in #ID opens the dialog of that id, if it allows it: once.
  const asked = document.getElementById(location.hash.slice(1));
  if (asked?.matches("dialog[data-direct]")) {
    history.replaceState(null, "", location.pathname + location.search);
    asked.showModal();
  }

  window.groupgate = {api, reason, say, element, flash, flashLater, showFaults, clearFaults, values, busy};
})();
