"use strict";
// A field with suggestions that come from the API. What is typed always counts:
// suggestions help, and refuse nothing.
(() => {
  const {element} = groupgate;
  let count = 0;

  // combo makes an input one. find(text) answers a promise of
  // [{value, note}]; an answer that comes too late is not shown. taken is told
  // which of them was picked, shown how many there are. What is typed already is
  // no suggestion, unless one has to be picked.
  groupgate.combo = (input, label, find, {taken = () => {}, shown = () => {}, pick = false} = {}) => {
    const list = element("ul", {id: "combo-" + ++count, role: "listbox", class: "combo-list", "aria-label": label, hidden: true});
    input.parentNode.append(list);
    for (const [name, value] of Object.entries({role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id})) {
      input.setAttribute(name, value);
    }
    let asked = 0, timer, at = -1, found = [];

    function close() {
      clearTimeout(timer);
      asked++;
      list.hidden = true;
      at = -1;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    }
    function mark(next) {
      const options = [...list.children];
      options.forEach((o, i) => o.setAttribute("aria-selected", String(i === next)));
      at = next;
      if (!options[next]) { input.removeAttribute("aria-activedescendant"); return; }
      input.setAttribute("aria-activedescendant", options[next].id);
      options[next].scrollIntoView({block: "nearest"});
    }
    function take(index) {
      const one = found[index];
      input.value = one.value;
      close();
      input.dispatchEvent(new Event("input", {bubbles: true}));
      close(); // the event asked again
      taken(one);
    }
    async function show() {
      const mine = ++asked;
      const all = await find(input.value);
      if (mine !== asked || document.activeElement !== input) return;
      found = pick ? all : all.filter((f) => f.value !== input.value);
      shown(found.length);
      if (!found.length) { close(); return; }
      list.replaceChildren(...found.map((f, i) => element("li", {id: list.id + "-" + i, role: "option", "aria-selected": "false"},
        element("span", {class: "combo-value"}, f.value), f.note ? element("span", {class: "combo-note"}, f.note) : null)));
      at = -1;
      list.hidden = false;
      input.setAttribute("aria-expanded", "true");
      input.removeAttribute("aria-activedescendant");
    }
    const later = () => { clearTimeout(timer); timer = setTimeout(show, 150); };

    input.addEventListener("input", later);
    input.addEventListener("click", later);
    input.addEventListener("blur", close);
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the field
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) take([...list.children].indexOf(option));
    });
    input.addEventListener("keydown", (event) => {
      const n = list.children.length;
      switch (event.key) {
        case "ArrowDown":
        case "ArrowUp":
          event.preventDefault();
          if (list.hidden) { show(); return; }
          mark(event.key === "ArrowDown" ? (at + 1) % n : (at <= 0 ? n : at) - 1);
          return;
        case "Enter":
          if (list.hidden || at < 0) return;
          event.preventDefault();
          take(at);
          return;
        case "Escape":
          if (list.hidden) return;
          event.preventDefault(); // the dialog stays open
          event.stopPropagation();
          close();
      }
    });
  };
})();
