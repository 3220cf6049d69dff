"use strict";
// The page of explain: it looks people up in a directory, asks the API what a
// statement would do, and shows the answer value by value.
(() => {
  const {api, reason, say, element, busy, clearFaults} = window.groupgate;
  const form = document.getElementById("explain");
  if (!form) return;
  const endpoint = document.body.dataset.base + "/api/v1/";
  const source = form.elements.source, user = form.elements.user, claims = form.elements.claims;
  const result = document.getElementById("explain-result");
  const said = document.getElementById("explain-said");
  const code = (text) => element("code", {}, text);
  const badge = (kind, text) => element("span", {class: "badge " + kind}, text);
  // fixed is a text of the API that we have in the page's language, else as it is.
  const fixed = (kind, text) => {
    const key = "explain." + kind + "." + text, own = say(key);
    return own === key ? element("span", {lang: "en"}, text) : document.createTextNode(own);
  };

  // where finds the first fault of a JSON text: {at, why}, or null. Browsers
  // say it each in their own words, or not at all.
  function where(text) {
    let at = 0;
    const fault = (why, i = at) => { throw {at: i, why}; };
    const blank = () => { while (" \t\r\n".includes(text[at] ?? "x")) at++; };
    const string = () => {
      const start = at++;
      for (; ; at++) {
        if (at >= text.length || text[at] === "\n") fault("open_string", start);
        if (text[at] === "\"") { at++; return text.slice(start, at); }
        if (text[at] < " ") fault("control");
        if (text[at] === "\\" && !/^\\(["\\/bfnrt]|u[0-9a-fA-F]{4})/.test(text.slice(at, at + 6))) fault("escape");
        if (text[at] === "\\") at++;
      }
    };
    const members = (end, one) => {
      at++;
      blank();
      if (text[at] === end) { at++; return; }
      for (; ;) {
        one();
        blank();
        if (text[at] === end) { at++; return; }
        if (text[at] !== ",") fault(at < text.length ? "comma" : "end");
        at++;
        blank();
        if (text[at] === end) fault("trailing", at);
      }
    };
    const value = () => {
      blank();
      if (at >= text.length) fault("end");
      if (text[at] === "\"") { string(); return; }
      if (text[at] === "[") { members("]", value); return; }
      if (text[at] === "{") {
        const seen = new Set();
        members("}", () => {
          blank();
          if (text[at] !== "\"") fault(at < text.length ? "key" : "end");
          const start = at, key = JSON.parse(string());
          if (seen.has(key)) fault("twice", start);
          seen.add(key);
          blank();
          if (text[at] !== ":") fault(at < text.length ? "colon" : "end");
          at++;
          value();
        });
        return;
      }
      const word = /^(true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)(?![\w.+-])/.exec(text.slice(at, at + 400));
      if (!word) fault("value");
      at += word[0].length;
    };
    try {
      blank();
      if (at < text.length && text[at] !== "{") fault("object");
      value();
      blank();
      if (at < text.length) fault("after");
      return null;
    } catch (e) {
      if (e.why) return e;
      return {at: 0, why: "value"}; // nested without an end
    }
  }

  // payload is what a token (a JWT) that was pasted says; null for another text.
  function payload(text) {
    const parts = /^[\w-]+\.([\w-]+)\.[\w-]*$/.exec(text.trim());
    if (!parts) return null;
    try {
      const bytes = Uint8Array.from(atob(parts[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
      const raw = new TextDecoder("utf-8", {fatal: true}).decode(bytes);
      return where(raw) ? null : JSON.stringify(JSON.parse(raw), null, 2);
    } catch { return null; }
  }

  function complain(text, at) {
    const before = claims.value.slice(0, at);
    const line = before.split("\n").length, column = at - before.lastIndexOf("\n");
    claims.setAttribute("aria-invalid", "true");
    claims.setAttribute("aria-describedby", "claims-hint claims-error");
    claims.closest(".field").append(element("p", {class: "error", id: "claims-error"}, say("explain.at", line, column) + " " + text));
    claims.focus();
    claims.setSelectionRange(at, Math.min(at + 1, claims.value.length));
    // A textarea scrolls to the selection in some browsers only.
    claims.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(claims).lineHeight) || 0);
  }

  const kind = () => source.selectedOptions[0]?.dataset.kind;
  const card = document.getElementById("lookup-card");
  const follow = () => { if (card) card.hidden = kind() !== "ldap"; };
  source.addEventListener("change", follow);
  follow();

  claims.addEventListener("input", () => {
    const text = payload(claims.value);
    if (!text) return;
    claims.value = text;
    said.textContent = say("explain.token");
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearFaults(form);
    said.textContent = "";
    const text = claims.value.trim() === "" ? "{}" : claims.value;
    const fault = where(text);
    if (fault) {
      result.replaceChildren();
      complain(say("explain.json." + fault.why), fault.at);
      return;
    }
    busy(form, async () => {
      // The text goes as it was written: reading it here would lose what the
      // API looks at, such as the digits of a long number.
      const body = `{"source":${JSON.stringify(source.value)},"user":${JSON.stringify(user.value.trim())},"claims":${text}}`;
      const res = await api("POST", endpoint + "explain", body);
      if (!res.ok) {
        result.replaceChildren();
        window.groupgate.showFaults(form, res);
        return;
      }
      show(res.body);
    });
  });

  // ---- the answer

  function show(r) {
    const head = element("h2", {tabindex: "-1", class: "explain-head"}, r.user ? say("explain.result_of", r.user) : say("explain.result"));
    result.replaceChildren(head);
    if (r.refused) {
      result.append(element("p", {class: "alert"}, say("explain.refused") + " ", element("span", {lang: "en"}, r.refused)));
    }
    result.append(tiles(r), outcome(r), ...r.explanation.claims.map(claim));
    if (!r.explanation.claims.length) {
      result.append(element("section", {class: "card"}, element("div", {class: "empty"}, element("p", {}, say(kind() === "local" ? "explain.local" : "explain.no_claims")))));
    }
    result.append(headers(r));
    head.focus({preventScroll: true});
    head.scrollIntoView({block: "start"});
  }

  function tiles(r) {
    const tile = (n, text) => element("li", {}, element("b", {}, String(n)), text);
    return element("ul", {class: "tiles"}, tile(r.groups.length, say("explain.groups")), tile(r.added.length, say("explain.added")),
      tile(r.removed.length, say("explain.removed")), tile(r.kept.length, say("explain.kept")), tile(r.skipped.length, say("explain.skipped")));
  }

  // section is a card with a heading and a table, or with what to say instead.
  function section(title, columns, rows, none, extra) {
    const id = "explain-" + section.count++;
    const box = element("section", {class: "card", "aria-labelledby": id}, element("header", {}, element("h3", {id}, title), extra));
    if (!rows.length) {
      box.append(element("p", {class: "pad soft explain-none"}, none));
      return box;
    }
    const body = element("tbody");
    box.append(element("table", {class: "stack"}, element("thead", {}, element("tr", {}, ...columns.map((c) => element("th", {scope: "col"}, c)))), body));
    const cells = (row) => element("tr", {}, ...row().map((cell, i) => element("td", {"data-label": columns[i]}, cell)));
    // Many rows come a part at a time.
    const more = () => body.append(...rows.splice(0, 100).map(cells));
    more();
    if (rows.length) {
      const button = element("button", {type: "button"}, say("explain.more", rows.length));
      const foot = element("div", {class: "pager"}, button);
      button.addEventListener("click", () => {
        more();
        button.textContent = say("explain.more", rows.length);
        if (!rows.length) foot.remove();
      });
      box.append(foot);
    }
    return box;
  }
  section.count = 0;

  // outcome says of each group what happens to it, and why.
  function outcome(r) {
    const hits = new Map();
    for (const c of r.explanation.claims) for (const v of c.values) for (const rule of v.rules) {
      if (!rule.hit) continue;
      if (!hits.has(rule.group)) hits.set(rule.group, []);
      hits.get(rule.group).push([c.claim, v.value, rule.location || rule.rule]);
    }
    const why = (group, otherwise) => {
      const all = hits.get(group) ?? [];
      if (!all.length) return element("span", {class: "soft"}, otherwise);
      const list = element("ul", {class: "people-why"}, ...all.slice(0, 5).map(([c, v, rule]) =>
        element("li", {}, code(c), " = ", code(v), " · ", say("explain.by_rule"), " ", code(rule))));
      if (all.length > 5) list.append(element("li", {class: "soft"}, say("explain.more_reasons", all.length - 5)));
      return list;
    };
    const added = new Set(r.added), kept = new Set(r.kept);
    const name = (group) => () => element("a", {href: result.dataset.groups + encodeURIComponent(group)}, group);
    const rows = [];
    const row = (group, mark, text, link = true) => rows.push(() => [link ? name(group)() : element("span", {}, group), mark, text]);
    for (const g of r.added) row(g, badge("ok", "+ " + say("explain.is_added")), why(g, say("explain.by_default")), false);
    for (const g of r.removed) row(g, badge("bad", "− " + say("explain.is_removed")), element("span", {class: "soft"}, say("explain.why_removed")));
    for (const s of r.skipped) {
      row(s.group, badge("warn", say("explain.is_skipped")), element("span", {}, fixed("skip", s.reason), " · ", code(s.claim), " = ", code(s.value)), false);
    }
    for (const g of r.groups) {
      if (added.has(g)) continue;
      kept.has(g) ? row(g, badge("", say("explain.is_kept")), element("span", {class: "soft"}, say("explain.why_kept"))) :
        row(g, badge("sso", say("explain.is_same")), why(g, say("explain.by_default")));
    }
    return section(say("explain.groups"), [say("explain.group"), say("explain.what"), say("explain.why")], rows, say("explain.no_groups"));
  }

  const states = {complete: "ok", absent: "warn", unknown: "bad"};

  function claim(c) {
    const state = element("span", {class: "people-badges"}, badge(states[c.state], say("explain.state." + c.state)),
      element("span", {class: "soft"}, ...(c.why ? [fixed("why", c.why), ": "] : []), fixed("effect", c.effect)));
    const rows = c.values.map((v) => () => [code(v.value), verdict(v.rules), verdicts(v.rules)]);
    return section(element("span", {}, say("explain.claim") + " ", code(c.claim)), [say("explain.value"), say("explain.verdict"), say("explain.rules")], rows, say("explain.no_values"), state);
  }

  const near = (rule) => !rule.hit && /^(piece ".*": )?(differs in )/s.test(rule.why);
  function verdict(rules) {
    if (rules.some((r) => r.hit)) return badge("ok", say("explain.hit"));
    if (rules.some(near)) return badge("warn", say("explain.near"));
    return badge("", rules.length ? say("explain.miss") : say("explain.unread"));
  }

  // verdicts shows what hit and what nearly did; the rest on demand.
  function verdicts(rules) {
    const first = rules.filter((r) => r.hit || near(r)), rest = rules.filter((r) => !r.hit && !near(r));
    if (!rules.length) return element("span", {class: "soft"}, say("explain.no_rule"));
    const list = element("ul", {class: "people-why"}, ...first.map(judged));
    if (!rest.length) return list;
    const misses = element("ul", {class: "people-why"});
    const more = element("details", {class: "explain-misses"}, element("summary", {}, say("explain.misses", rest.length)), misses);
    more.addEventListener("toggle", () => { if (!misses.childElementCount) misses.append(...rest.map(judged)); });
    return element("div", {}, ...(first.length ? [list] : []), more);
  }

  function judged(rule) {
    const line = element("li");
    if (rule.hit) line.append("→ ", element("b", {}, rule.group), " · ");
    else if (near(rule)) line.append(element("b", {}, say("explain.near")), " · ");
    line.append(code(rule.location || rule.rule), " ", code(rule.text), " · ", ...because(rule.why));
    return line;
  }

  // because puts the API's reason into the page's language, piece by piece.
  function because(why) {
    const out = [];
    const piece = /^piece ("(?:[^"\\]|\\.)*"): (.*)$/s.exec(why);
    if (piece) { out.push(say("explain.piece") + " ", code(piece[1]), ": "); why = piece[2]; }
    const holds = why.endsWith(", and the condition holds");
    const [head, ...rest] = (holds ? why.slice(0, -", and the condition holds".length) : why).split(", but ");
    out.push(fixed("why", head));
    if (holds) out.push(", " + say("explain.condition_holds"));
    if (rest.length) out.push(", " + say("explain.but") + " ", element("span", {lang: "en"}, rest.join(", but ")));
    return out;
  }

  function headers(r) {
    const all = r.headers.map((h) => h.name + ": " + h.value).join("\n");
    const rows = r.headers.map((h) => () => [code(h.name), code(h.value), copier(h.value, say("explain.copy"), say("explain.copy_of", h.name))]);
    const none = r.refused ? say("explain.no_headers_refused") : r.headers_problem ? say("explain.no_headers") : say("explain.headers_unset");
    const box = section(say("explain.headers"), [say("explain.header"), say("explain.value"), say("explain.copy")], rows, none, r.headers.length ? copier(all, say("explain.copy_all"), say("explain.copy_all")) : null);
    if (r.headers_problem) box.firstElementChild.after(element("p", {class: "alert explain-problem"}, say("explain.headers_problem") + " ", element("span", {lang: "en"}, r.headers_problem)));
    return box;
  }

  function copier(text, label, name) {
    const button = element("button", {type: "button", class: "small", "aria-label": name}, label);
    button.addEventListener("click", async () => {
      const ok = await copy(text);
      button.textContent = ok ? say("explain.copied") : say("explain.not_copied");
      said.textContent = button.textContent;
      setTimeout(() => { button.textContent = label; }, 2000);
    });
    return button;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* not on plain http, and not without leave: the old way */ }
    const area = element("textarea", {class: "vh", "aria-hidden": "true"});
    area.value = text;
    document.body.append(area);
    const had = document.activeElement;
    area.select();
    const ok = document.execCommand("copy");
    area.remove();
    had?.focus();
    return ok;
  }

  // ---- looking somebody up in a directory

  const lookup = document.getElementById("lookup");
  lookup?.addEventListener("submit", (event) => {
    event.preventDefault();
    const answer = document.getElementById("lookup-result");
    const name = source.value;
    busy(lookup, async () => {
      answer.replaceChildren(element("p", {class: "soft"}, say("explain.asking", name)));
      const res = await api("POST", endpoint + "sources/" + encodeURIComponent(name) + ":test", {person: lookup.elements.person.value});
      const f = res.body?.found;
      if (!res.ok || !res.body.ok) {
        answer.replaceChildren(element("p", {class: "alert"}, res.ok ? res.body.detail : reason(res)));
        return;
      }
      const searches = element("details", {}, element("summary", {}, say("explain.searches")), element("ul", {class: "people-why"}, ...f.searches.map((s) => element("li", {}, code(s)))));
      if (f.problem) {
        answer.replaceChildren(element("p", {class: "notice"}, element("span", {lang: "en"}, f.problem)), searches);
        return;
      }
      const notes = [element("p", {}, say("explain.found"), " ", code(f.entry))];
      if (f.account) notes.push(element("p", {class: "notice"}, say("explain.account") + " ", element("span", {lang: "en"}, f.account)));
      if (f.unknown?.length) notes.push(element("p", {class: "notice"}, say("explain.unknown") + " ", element("span", {lang: "en"}, f.unknown.join("; "))));
      const nested = f.groups.filter((g) => g.how !== "direct").length;
      notes.push(element("p", {class: "soft"}, say("explain.found_groups", f.groups.length, nested)));
      claims.value = JSON.stringify(f.claims ?? {}, null, 2);
      user.value = f.subject ?? "";
      clearFaults(form);
      result.replaceChildren();
      answer.replaceChildren(...notes, searches);
    });
  });
})();
