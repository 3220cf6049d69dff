"use strict";
// The test of a source: reach it, and look somebody up in a directory.
(() => {
  const {api, reason, say, element} = groupgate;
  const dialog = document.getElementById("source-test");
  if (!dialog) return;
  const form = document.getElementById("source-test-form");
  const field = document.getElementById("source-person-field");
  const person = document.getElementById("source-person");
  const result = document.getElementById("source-result");
  let url = "";
  let asked = 0; // an answer counts for the dialog it was asked from

  dialog.addEventListener("opened", (event) => {
    const {sourceKind, sourceUrl} = event.detail.dataset;
    url = sourceUrl;
    asked++;
    field.hidden = sourceKind !== "ldap";
    person.value = "";
    result.replaceChildren();
    (field.hidden ? form.querySelector(".primary") : person).focus();
  });

  const badge = (kind, text) => element("span", {class: "badge operate-wrap " + kind}, text);
  const english = (text) => element("span", {lang: "en"}, text);
  const word = (key, text) => { const own = say(key); return own === key ? text : own; };

  function facts(...pairs) {
    const list = element("dl", {class: "facts"});
    for (const [name, value] of pairs) if (value) list.append(element("dt", {}, name), element("dd", {}, value));
    return list;
  }

  function groupTable(groups) {
    if (!groups.length) return element("p", {}, say("sources.no_groups"));
    const body = element("tbody");
    for (const g of groups) {
      body.append(element("tr", {},
        element("td", {"data-label": say("sources.group")}, element("code", {}, g.value)),
        element("td", {"data-label": say("sources.claim")}, element("code", {}, g.claim)),
        element("td", {"data-label": say("sources.path")}, element("span", {}, word("sources.how_" + g.how, g.how),
          ...(g.through ?? []).flatMap((name) => [" → ", element("code", {}, name)])))));
    }
    const heads = ["group", "claim", "path"].map((key) => element("th", {scope: "col"}, say("sources." + key)));
    return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": say("sources.groups")},
      element("table", {class: "stack"}, element("thead", {}, element("tr", {}, ...heads)), body));
  }

  function lookedUp(found) {
    const out = [element("h3", {}, say("sources.searches")),
      element("ol", {class: "operate-searches"}, ...found.searches.map((s) => element("li", {}, element("code", {}, s))))];
    if (found.problem) {
      out.push(element("p", {class: "notice"}, say("sources.not_found"), " ", english(found.problem)));
      return out;
    }
    out.push(facts([say("sources.entry"), element("code", {}, found.entry ?? "")], [say("sources.subject"), element("code", {}, found.subject ?? "")],
      [say("sources.account"), found.account ? element("span", {}, badge("bad", say("sources.account_no")), " ", english(found.account)) : badge("ok", say("sources.account_ok"))]));
    out.push(element("h3", {}, say("sources.groups")));
    for (const why of found.unknown ?? []) out.push(element("p", {class: "notice"}, say("sources.unknown"), " ", english(why)));
    out.push(groupTable(found.groups ?? []));
    return out;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const mine = ++asked;
    const body = person.value.trim() && !field.hidden ? {person: person.value.trim()} : {};
    result.replaceChildren(element("p", {class: "soft"}, say("sources.asking")));
    groupgate.busy(form, async () => {
      const res = await api("POST", url, body);
      if (mine !== asked) return;
      if (!res.ok) { result.replaceChildren(element("p", {class: "alert"}, reason(res))); return; }
      const said = res.body;
      const head = element("p", {class: "operate-verdict"}, said.ok ? badge("ok", say("sources.works")) : badge("bad", say("sources.fails")));
      result.replaceChildren(head, element("p", {lang: "en"}, said.detail ?? ""), ...(said.found ? lookedUp(said.found) : []));
    });
  });
})();
