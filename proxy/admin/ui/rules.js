"use strict";
// The dialog of a rule: what is typed is tried on the people we know, what it
// would change is shown first, and then it is saved.
(() => {
  const {api, reason, say, element, flashLater} = groupgate;
  const dialog = document.getElementById("rule");
  const form = document.getElementById("rule-form");
  const plan = document.getElementById("rule-plan");
  const known = document.getElementById("rule-known");
  const changes = document.getElementById("rule-changes");
  const saveButton = document.getElementById("rule-save");
  const status = document.getElementById("rule-status"); // read aloud; the tables are not
  const backButton = document.getElementById("rule-back");
  const at = dialog.dataset;
  const field = form.elements;
  const shown = 50; // of people and of groups in a plan

  let rule = null;      // the one that is edited or deleted; null: a new one
  let deleting = false;
  let stop = new AbortController();
  let touched = new Set();

  const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const person = (id, name) => element("a", {href: at.people + "/" + encodeURIComponent(id)}, name || id);
  const badge = (kind, text) => element("span", {class: "badge " + kind}, text);

  // typed is the rule in the form, as the API takes it.
  function typed() {
    const out = {claim: field.claim.value.trim()};
    const kind = field.match.value;
    if (kind === "any") out.any = true; else if (field.value.value) out[kind] = field.value.value;
    if (kind !== "any" && field.group.value) out.group = field.group.value;
    for (const name of ["source", "split", "when"]) if (field[name].value) out[name] = field[name].value;
    return out;
  }

  function line(r) {
    const how = r.any ? say("rules_any") : r.dn ? "DN " + r.dn : r.regexp ? "/" + r.regexp + "/" : r.value;
    return [r.source || say("rules_any_source"), r.claim, how].join(" · ") + " → " + (r.any ? say("rules_any_group") : r.group);
  }

  // Faults stand at their fields. While somebody types, only at those that were
  // touched, and the focus stays where it is.
  function place(faults, all) {
    groupgate.clearFaults(form);
    const rest = [];
    let first = null;
    for (const f of faults) {
      const name = {dn: "value", regexp: "value"}[f.key] ?? f.key;
      const input = field[name];
      const box = input instanceof HTMLElement ? input.closest(".field") : null;
      if (!box || box.hidden) { rest.push(f.key + ": " + f.message); continue; }
      if (!all && !touched.has(name) || box.querySelector(".error")) continue;
      const id = input.id + "-error";
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", [input.getAttribute("aria-describedby"), id].filter(Boolean).join(" "));
      box.append(element("p", {class: "error", id, lang: "en"}, f.message));
      const options = input.closest("details");
      if (options) options.open = true;
      first ??= input;
    }
    if (all && rest.length) alertIn(form, rest.join("; "));
    if (all) (first ?? form.querySelector("[role=alert]"))?.focus();
  }
  function alertIn(where, text, ...more) {
    where.querySelector(":scope > [role=alert]")?.remove();
    const box = element("div", {class: "alert", role: "alert", tabindex: "-1"}, element("p", {}, text), ...more);
    where.querySelector("h2").after(box);
    return box;
  }

  // Whom it would match, while it is typed.
  let timer;
  function tryLater() {
    clearTimeout(timer);
    timer = setTimeout(tryNow, 250);
  }
  async function tryNow() {
    const r = typed();
    stop.abort();
    stop = new AbortController();
    const mine = stop;
    if (!r.claim && !(r.value || r.dn || r.regexp)) {
      place([], false);
      known.replaceChildren(element("p", {class: "soft"}, say("rules_known_later")));
      known.setAttribute("aria-busy", "false");
      return;
    }
    known.setAttribute("aria-busy", "true");
    const res = await api("POST", at.match, {rule: r}, {}, mine.signal);
    if (mine.signal.aborted) return;
    known.setAttribute("aria-busy", "false");
    if (res.status === 422) {
      place(res.body.errors ?? [], false);
      known.replaceChildren(element("p", {class: "soft"}, say("rules_known_faulty")));
      return;
    }
    if (!res.ok) {
      known.replaceChildren(element("p", {class: "error"}, reason(res)));
      return;
    }
    place([], false);
    showKnown(res.body);
  }
  function showKnown(m) {
    status.textContent = say("rules_known", number(m.people), number(m.known_users));
    const head = element("p", {}, element("b", {}, status.textContent), m.complete ? null : " " + say("rules_known_part"));
    if (!m.items.length) {
      known.replaceChildren(head, element("p", {class: "soft"}, say("rules_known_nobody")));
      return;
    }
    const many = !field.source.value; // sources
    const rows = m.items.map((i) => element("tr", {},
      element("td", {}, person(i.id, i.user)), many ? element("td", {}, i.source) : null, element("td", {}, element("code", {}, i.value)), element("td", {}, i.group ?? "–")));
    known.replaceChildren(head, table([say("rules_person"), many ? say("rules_source") : "", say("rules_value"), say("rules_group")].filter(Boolean), rows),
      m.people > m.items.length ? element("p", {class: "hint"}, say("rules_first", number(m.items.length), number(m.people))) : "");
  }
  function table(heads, rows) {
    return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": heads.join(", ")},
      element("table", {class: "rule-small"}, element("thead", {}, element("tr", {}, ...heads.map((h) => element("th", {scope: "col"}, h)))), element("tbody", {}, ...rows)));
  }

  // The match decides which fields there are.
  function fit() {
    const kind = field.match.value;
    form.querySelectorAll("[data-for]").forEach((e) => { e.hidden = kind === "any"; });
    form.querySelectorAll("[data-hint]").forEach((e) => { e.hidden = e.dataset.hint !== kind; });
  }

  // Suggestions.
  const usual = {oidc: ["groups", "roles"], saml: ["groups", "group", "memberOf"], ldap: ["memberOf"]};
  groupgate.combo(field.claim, say("rules_seen_claims"), async (text) => {
    const source = field.source.value;
    const res = await api("GET", at.claims + "?limit=100&source=" + encodeURIComponent(source));
    const seen = res.ok ? res.body.items : [];
    const all = seen.filter((c) => c.usual || c.people).map((c) => ({value: c.claim, note: c.people ? say("rules_carry", number(c.people)) : ""}));
    for (const name of usual[field.source.selectedOptions[0]?.dataset.kind] ?? []) {
      if (!all.some((c) => c.value === name)) all.push({value: name, note: say("rules_usual")});
    }
    const low = text.toLowerCase();
    return all.filter((c) => c.value.toLowerCase().includes(low)).slice(0, 30);
  });
  groupgate.combo(field.value, say("rules_seen_values"), async (text) => {
    if (!field.claim.value || field.match.value === "regexp") return [];
    const query = new URLSearchParams({claim: field.claim.value.trim(), source: field.source.value, query: text, limit: "30"});
    const res = await api("GET", at.values + "?" + query);
    return res.ok ? res.body.items.map((v) => ({value: v.value, note: say("rules_carry", number(v.people))})) : [];
  });
  groupgate.combo(field.group, say("rules_groups"), async (text) => {
    const res = await api("GET", at.groups + "?limit=30&query=" + encodeURIComponent(text));
    return res.ok ? res.body.items.map((g) => ({value: g.name, note: g.control === "manual" ? say("rules_manual") : ""})) : [];
  });

  // Opening, from a row or anew.
  function open(of, remove, draft = {}) {
    rule = of;
    deleting = remove;
    touched = new Set();
    form.reset();
    groupgate.clearFaults(form);
    const r = of ?? draft;
    field.source.value = r.source ?? "";
    if (field.source.selectedIndex < 0) field.source.selectedIndex = 0;
    field.claim.value = r.claim ?? "";
    field.match.value = r.any ? "any" : r.dn ? "dn" : r.regexp ? "regexp" : "value";
    field.value.value = r.dn ?? r.regexp ?? r.value ?? "";
    field.group.value = r.group ?? "";
    field.split.value = r.split ?? "";
    field.when.value = r.when ?? "";
    form.querySelector("details").open = Boolean(r.split || r.when);
    document.getElementById("rule-title").textContent = say(of ? "rules_edit" : "rules_add");
    known.replaceChildren(element("p", {class: "soft"}, say("rules_known_later")));
    fit();
    dialog.showModal();
    if (remove) { showPlan(); return; }
    front(form, of ? field.value.closest("[hidden]") ? field.claim : field.value : r.value || r.dn ? field.group : field.claim);
    if (r.claim) tryNow();
  }
  function front(which, focus) {
    form.hidden = which !== form;
    plan.hidden = which !== plan;
    dialog.setAttribute("aria-labelledby", which === form ? "rule-title" : "rule-plan-title");
    focus.focus();
  }

  // stored reads all rules that are not the file's: a plan is about the whole set.
  async function stored(signal) {
    const out = [];
    for (let next = ""; ;) {
      const res = await api("GET", at.api + "?limit=500" + next, undefined, {}, signal);
      if (!res.ok) return res;
      out.push(...res.body.items.filter((r) => r.owner === "store"));
      if (!res.body.next) return {ok: true, rules: out};
      next = "&after=" + encodeURIComponent(res.body.next);
    }
  }

  async function showPlan() {
    clearTimeout(timer); // a try that is due would stop the plan
    stop.abort();
    stop = new AbortController();
    const mine = stop;
    const wanted = deleting ? null : typed();
    plan.querySelector(":scope > [role=alert]")?.remove();
    document.getElementById("rule-plan-title").textContent = say(deleting ? "rules_delete_title" : "rules_plan_title");
    document.getElementById("rule-line").textContent = line(wanted ?? rule);
    saveButton.textContent = say(deleting ? "rules_delete" : "rules_save");
    saveButton.className = deleting ? "danger" : "primary";
    backButton.textContent = say(deleting ? "rules_cancel" : "rules_back");
    saveButton.disabled = true;
    changes.setAttribute("aria-busy", "true");
    changes.replaceChildren(element("p", {class: "rule-wait"}, element("progress", {"aria-label": say("rules_working")}), say("rules_working")));
    status.textContent = say("rules_working");
    front(plan, document.getElementById("rule-plan-title"));
    const fail = (res) => {
      if (mine.signal.aborted) return;
      changes.setAttribute("aria-busy", "false");
      changes.replaceChildren();
      refuse(res);
    };
    const have = await stored(mine.signal);
    if (!have.ok) { fail(have); return; }
    const index = rule ? have.rules.findIndex((r) => r.id === rule.id) : have.rules.length;
    if (index < 0 || rule && have.rules[index].version !== rule.version) { fail({status: 412}); return; }
    if (wanted) have.rules[index] = rule ? {id: rule.id, ...wanted} : wanted; else have.rules.splice(index, 1);
    const res = await api("POST", at.plan, {rules: have.rules, limit: shown}, {}, mine.signal);
    if (mine.signal.aborted) return;
    if (res.status === 422 && wanted) {
      const own = "rules[" + index + "].";
      front(form, field.claim);
      place((res.body.errors ?? []).map((e) => e.key.startsWith(own) ? {...e, key: e.key.slice(own.length)} : e), true);
      return;
    }
    if (!res.ok) { fail(res); return; }
    changes.setAttribute("aria-busy", "false");
    saveButton.disabled = false;
    const own = rule ? rule.id : "new-" + index;
    drawPlan(res.body, deleting ? [] : res.body.skipped.filter((skip) => skip.rule === own));
  }

  function drawPlan(p, skipped) {
    const out = [];
    const lost = p.users.length >= p.changed_users ? p.users.filter((u) => u.removed.length).length : null;
    if (!p.added && !p.removed) {
      out.push(element("p", {class: "flash"}, say("rules_plan_none", number(p.known_users))));
    } else {
      out.push(element("ul", {class: "tiles"},
        tile(number(p.changed_users), say("rules_plan_people", number(p.known_users))),
        tile(p.added ? "+" + number(p.added) : "0", say("rules_plan_added")), tile(p.removed ? "−" + number(p.removed) : "0", say("rules_plan_removed"))));
    }
    if (p.removed) out.push(verdict(p.guard, lost));
    if (skipped.length) {
      out.push(element("div", {class: "notice"}, element("p", {}, say("rules_plan_skipped")),
        element("ul", {}, ...skipped.slice(0, 10).map((s) => element("li", {}, element("b", {}, s.group), ": " + skipReason(s.reason) + " (" + say("rules_carry", number(s.people)) + ")")))));
    }
    if (p.groups.length) {
      out.push(element("h3", {}, say("rules_plan_by_group")), table([say("rules_group"), say("rules_plan_added"), say("rules_plan_removed")],
        p.groups.slice(0, shown).map((g) => element("tr", {}, element("td", {}, g.group + " ", g.created ? badge("sso", say("rules_plan_created")) : null),
          element("td", {class: "num plus"}, g.added ? "+" + number(g.added) : "–"), element("td", {class: "num minus"}, g.removed ? "−" + number(g.removed) : "–")))));
      if (p.groups.length > shown) out.push(element("p", {class: "hint"}, say("rules_first", number(shown), number(p.groups.length))));
    }
    const changed = p.users.filter((u) => u.added.length || u.removed.length);
    if (changed.length) {
      const names = (list, sign, kind) => element("td", {class: kind}, list.length ? list.slice(0, 20).map((g) => sign + g).join(", ") + (list.length > 20 ? " …" : "") : "–");
      out.push(element("h3", {}, say("rules_plan_by_person")), table([say("rules_person"), say("rules_plan_added"), say("rules_plan_removed")],
        changed.map((u) => element("tr", {}, element("td", {}, person(u.id, u.user)), names(u.added, "+", "plus"), names(u.removed, "−", "minus")))));
      if (p.changed_users > changed.length) out.push(element("p", {class: "hint"}, say("rules_first", number(changed.length), number(p.changed_users))));
    }
    changes.replaceChildren(...out);
    status.textContent = p.added || p.removed ? say("rules_plan_people", number(p.known_users)) + ": " + number(p.changed_users) : out[0].textContent;
  }
  const tile = (big, text) => element("li", {}, element("b", {}, big), text);
  function skipReason(text) {
    return {"group does not exist": say("rules_skip_missing"), "name not allowed": say("rules_skip_name"), "manually controlled": say("rules_skip_manual")}[text] ?? text;
  }
  function verdict(g, lost) {
    const numbers = [number(g.removed_users), number(g.limit), number(g.holders)];
    if (g.stops) {
      return element("div", {class: "alert", id: "rule-guard"}, element("p", {}, element("b", {}, say("rules_guard_stops"))), element("p", {}, say("rules_guard_numbers", ...numbers)), element("p", {}, say("rules_guard_after")));
    }
    return element("div", {class: "notice", id: "rule-guard"}, element("p", {}, element("b", {}, say("rules_guard_lets")), " ", say("rules_guard_lets_numbers", lost === null ? numbers[0] : number(lost), numbers[2])));
  }

  // refuse says why it went wrong, in the plan's part of the dialog.
  function refuse(res, again = false) {
    const changed = [404, 409, 412].includes(res.status);
    const load = element("button", {type: "button", class: "small"}, say("rules_reload"));
    load.addEventListener("click", () => location.reload());
    alertIn(plan, changed ? say("rules_changed") : reason(res), changed ? load : null).focus();
    saveButton.disabled = changed || !again;
  }

  async function save() {
    saveButton.disabled = backButton.disabled = true;
    changes.setAttribute("aria-busy", "true");
    const tag = rule ? {"If-Match": `"${rule.version}"`} : {};
    const to = rule ? at.api + "/" + encodeURIComponent(rule.id) : at.api;
    const res = deleting ? await api("DELETE", to, undefined, tag) : await api(rule ? "PUT" : "POST", to, typed(), tag);
    changes.setAttribute("aria-busy", "false");
    backButton.disabled = false;
    if (res.status === 422) {
      front(form, field.claim);
      place(res.body.errors ?? [], true);
      return;
    }
    if (!res.ok) { refuse(res, true); return; }
    flashLater(say(deleting ? "rules_deleted" : "rules_saved"));
    const here = new URL(location);
    for (const name of ["new", "claim", "value"]) here.searchParams.delete(name);
    if ("new" in at) here.searchParams.delete("source");
    here.href === location.href ? location.reload() : location.assign(here);
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); showPlan(); });
  form.addEventListener("input", (event) => {
    if (event.target.name) touched.add(event.target.name);
    if (event.target.name === "match") fit();
    tryLater();
  });
  form.addEventListener("focusout", (event) => { if (event.target.value && event.target.name) touched.add(event.target.name); });
  saveButton.addEventListener("click", save);
  backButton.addEventListener("click", () => {
    stop.abort();
    if (deleting) { dialog.close(); return; }
    front(form, form.querySelector(".primary"));
  });
  dialog.addEventListener("close", () => { clearTimeout(timer); stop.abort(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-rule-add],[data-rule-edit],[data-rule-delete]");
    if (!button) return;
    const row = button.closest("[data-rule]");
    row ? open(JSON.parse(row.dataset.rule), "ruleDelete" in button.dataset) : open(null, false, {group: at.group});
  });
  if ("new" in at) {
    const kind = [...field.source.options].find((o) => o.value === at.source)?.dataset.kind;
    const name = kind === "ldap" && /^[\w.]+=./.test(at.value) ? {dn: at.value} : {value: at.value}; // as directories write it
    open(null, false, {source: at.source, claim: at.claim, group: at.group, ...name});
  }
})();
