// Drives one Chromium through many scenarios at once and says what it saw.
//
//   node browser.mjs
//
// Every line of the input is about one scenario, which has a number:
//
//   {"id":1,"scenario":{...}}   begin, in a profile of its own; with "steps" do
//                               them, end, and answer as for the end
//   {"id":1,"step":{...}}       answer {"id":1,"value":...}, or {"id":1,"error":...}
//   {"id":1,"end":true}         answer {"id":1,"seen":{...}}
//
// Every answer is a line; those of one scenario come in the order of its lines.
// The end of the input ends the browser.
//
// The scenario is {"width","height","scheme":"light|dark","locale":"de-DE",
// "pages":["http://..."],"own":["http://..."],"steps":[...]}. Requests go to origins in "own" or in
// "pages" alone; "pages" are the origins whose pages are watched. A step is one of
//
//   {"goto": URL}                       and wait for the page
//   {"fill": SELECTOR, "value": TEXT}
//   {"click": SELECTOR}                 and wait for the page it leads to
//   {"expect": TEXT}                    visible text of the page
//   {"status": 403}                     of the page's own answer
//   {"url": TEXT}                       a part of the page's address
//   {"shot": FILE}                      the whole page, PNG; with "window": true what is in the window
//   {"measure": NAME}                   title, size and what sticks out sideways
//   {"size": [WIDTH, HEIGHT]}, {"scheme": "dark"}, {"text": "200%"}
//                                       of the page that is open
//   {"axe": NAME}                       what axe-core finds wrong with the page
//   {"tabs": NAME}                      what Tab reaches, one after the other
//   {"focused": SELECTOR}               wait until it has the focus by itself
//   {"tab": SELECTOR}                   press Tab until it has the focus
//   {"type": TEXT}                      with the keyboard, where the focus is
//   {"press": KEY}                      and, after Enter, wait for the page it leads to
//   {"key": KEY}                        and wait for nothing
//   {"choose": SELECTOR, "value": TEXT} of a select
//   {"check": SELECTOR, "on": true}
//   {"upload": SELECTOR, "file": FILE}
//   {"download": SELECTOR, "to": FILE}  click, and keep what comes
//   {"see": SELECTOR}, {"gone": SELECTOR}
//                                       wait until it is visible, or nowhere
//   {"read": SELECTOR}                  the visible texts, a list
//   {"values": SELECTOR}                what fields hold, a list
//   {"attribute": NAME, "of": SELECTOR} a list
//   {"focus": true}                     what has the focus, as "tabs" says it
//   {"where": true}                     the page's address
//   {"look": NAME}                      "measure" and "axe" in one, answered at once
//   {"survey": true}                    the texts that people read, and what is cut off, dialogs too
//
// "refusals": true takes the API's answers of 4xx as what is meant to happen, and
// those about the console's icon, which the browser asks for when it likes.
//
// What was seen is {"measures":{...},"axe":{...},"tabs":{...},"console":[...],"foreign":[...],"error":"..."}:
// what watched pages wrote to the console as a warning or an error (a breach of
// the Content-Security-Policy is one), and what they asked of other origins.
import { existsSync } from 'node:fs';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const browser = await chromium.launch({
  // The shell is Chromium without windows, and takes half as long.
  executablePath: process.env.CHROMIUM ?? ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find(existsSync),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
});

// settled measures the page that is there when no other one is on its way.
async function settled(page) {
  for (let tries = 0; ; tries++) {
    try {
      return await page.evaluate(measure);
    } catch (err) {
      if (tries === 20 || !err.message.includes('context was destroyed')) throw err;
      await page.waitForTimeout(100);
    }
  }
}

// measure runs in the page.
const measure = () => {
  const root = document.documentElement;
  const lines = (e) => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
  };
  const wide = [...document.querySelectorAll('body *')]
    .filter((e) => e.getBoundingClientRect().right > root.clientWidth + 0.5)
    .map((e) => `${e.tagName.toLowerCase()}.${e.className}`);
  return {
    title: document.title, heading: document.querySelector('h1')?.textContent ?? '',
    scroll_width: root.scrollWidth, client_width: root.clientWidth, sticks_out: wide,
    background: getComputedStyle(document.body).backgroundColor, styled: document.styleSheets.length,
    lang: root.lang, viewport: document.querySelector('meta[name=viewport]') !== null,
    request: document.querySelector('code')?.textContent ?? '',
    controls: document.querySelectorAll('a[href], button, input:not([type=hidden], [hidden]), select, textarea, summary, [tabindex]').length,
    split: [...document.querySelectorAll('code, .status, .arrow')].filter((e) => lines(e) > 1).map((e) => e.textContent),
    moves: [...document.querySelectorAll('*')].filter((e) => {
      const style = getComputedStyle(e);
      return style.animationName !== 'none' || style.transitionDuration !== '0s';
    }).map((e) => e.tagName.toLowerCase()),
  };
};

// survey runs in the page: what people read, and what does not fit. Dialogs are
// looked at one after the other.
const survey = () => {
  const root = document.documentElement;
  const out = { lang: root.lang, title: document.title, texts: [], clipped: [], dialogs: 0 };
  const texts = new Set();
  const name = (e) => `${e.tagName.toLowerCase()}${e.id && `#${e.id}`} ${JSON.stringify(e.textContent.trim().slice(0, 40))}`;
  const unseen = (e) => e && (e.clientWidth === 1 && getComputedStyle(e).overflow === 'hidden' || unseen(e.parentElement)); // for those who listen
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth ? e : scrolls(e.parentElement));
  const look = (top) => {
    const within = top === root ? root.clientWidth : Math.ceil(top.getBoundingClientRect().right);
    if (root.scrollWidth > root.clientWidth) out.clipped.push(`${name(top).slice(0, 60)}: the page scrolls sideways, ${root.scrollWidth} in ${root.clientWidth}`);
    for (const e of top.querySelectorAll('*')) {
      if (!e.checkVisibility({ visibilityProperty: true })) continue;
      const foreign = e.closest('[lang]') !== root;
      for (const n of e.childNodes) if (n.nodeType === Node.TEXT_NODE && !foreign && !e.closest('code, pre, textarea')) texts.add(n.data.replace(/\s+/g, ' ').trim());
      for (const a of ['aria-label', 'title', 'placeholder', 'data-label']) if (!foreign && e.hasAttribute(a)) texts.add(e.getAttribute(a));
      if (!e.matches('button, a, summary, input, select, textarea, label, th, .badge, h1, h2, h3')) continue;
      const box = e.getBoundingClientRect();
      if (scrolls(e.parentElement) || unseen(e)) continue;
      const cut = e.matches('input, select, textarea') ? false : getComputedStyle(e).display !== 'inline' && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 2);
      if (cut || box.left < -0.5 || box.right > within + 0.5) out.clipped.push(`${name(e)} ${Math.round(box.left)}-${Math.round(box.right)} of ${within}`);
    }
  };
  const open = document.querySelector('dialog[open]');
  look(open ?? root);
  for (const dialog of open ? [] : document.querySelectorAll('dialog')) {
    dialog.showModal();
    out.dialogs++;
    look(dialog);
    dialog.close();
  }
  out.texts = [...texts].filter((t) => /\p{L}{2}/u.test(t));
  return out;
};

// focused runs in the page: the control with the focus, and how one sees that.
const focused = () => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect();
  const style = getComputedStyle(e);
  return {
    text: e.textContent.trim() || (e.labels?.[0]?.textContent ?? ''), address: e.href ?? '', outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    inside: box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth && box.width > 0,
    index: [...document.querySelectorAll('*')].indexOf(e),
  };
};

// Everything axe-core knows, and the size of targets (WCAG 2.2, 2.5.8), which
// it leaves out unless asked. It does not know that nothing behind a modal
// dialog shows through: that is hidden meanwhile.
async function axe(page) {
  const behind = (shown) => {
    const dialog = document.querySelector('dialog:modal');
    if (dialog) document.body.style.visibility = shown ? '' : 'hidden';
    if (dialog) dialog.style.visibility = shown ? '' : 'visible';
  };
  await page.evaluate(behind, false);
  // Its other mode, for frames of other sites, opens a page for each look.
  const found = await new AxeBuilder({ page }).setLegacyMode().options({ rules: { 'target-size': { enabled: true } } }).analyze();
  await page.evaluate(behind, true);
  const where = (v) => v.nodes.map((n) => `${v.id}: ${n.target.join(' ')}: ${n.failureSummary}`);
  return { violations: found.violations.flatMap(where), unsure: found.incomplete.flatMap(where), passes: found.passes.map((p) => p.id) };
}

async function tabs(page) {
  const all = [];
  for (let i = 0; i < 100; i++) {
    await page.keyboard.press('Tab');
    const f = await page.evaluate(focused);
    if (!f || all.some((other) => other.index === f.index)) break;
    all.push(f);
  }
  return all;
}

// act does one step of a scenario, and answers what it asks for.
async function act({ page, answer, seen }, step, fail) {
  if (step.goto) {
    await page.goto(step.goto, { waitUntil: 'load' });
  } else if (step.fill) {
    await page.fill(step.fill, step.value);
  } else if (step.click) {
    await page.click(step.click);
    await page.waitForLoadState('load');
  } else if (step.expect) {
    await page.getByText(step.expect).first().waitFor({ state: 'visible' });
  } else if (step.focused) {
    await page.waitForFunction((s) => document.activeElement?.matches(s), step.focused);
  } else if (step.status) {
    if (answer.status !== step.status) fail(`the status is ${answer.status}`);
  } else if (step.url) {
    await page.waitForURL((u) => u.href.includes(step.url));
  } else if (step.shot) {
    await page.screenshot({ path: step.shot, fullPage: !step.window });
  } else if (step.measure) {
    seen.measures[step.measure] = await settled(page);
  } else if (step.size) {
    await page.setViewportSize({ width: step.size[0], height: step.size[1] });
  } else if (step.scheme) {
    await page.emulateMedia({ colorScheme: step.scheme });
  } else if (step.text) {
    await page.evaluate((size) => { document.documentElement.style.fontSize = size; }, step.text);
  } else if (step.axe) {
    seen.axe[step.axe] = await axe(page);
  } else if (step.tabs) {
    seen.tabs[step.tabs] = await tabs(page);
  } else if (step.tab) {
    for (let n = 0; !(await page.evaluate((s) => document.activeElement.matches(s), step.tab)); n++) {
      if (n === 50) fail('Tab does not reach it');
      await page.keyboard.press('Tab');
    }
  } else if (step.type) {
    await page.keyboard.type(step.type);
  } else if (step.press) {
    // Waiting begins before the key: the page may lead to its own address.
    const left = step.press === 'Enter' ? page.waitForEvent('framenavigated') : undefined;
    await page.keyboard.press(step.press);
    await left;
    await page.waitForLoadState('load');
  } else if (step.key) {
    await page.keyboard.press(step.key);
  } else if (step.choose) {
    await page.selectOption(step.choose, step.value);
  } else if (step.check) {
    await page.setChecked(step.check, step.on);
  } else if (step.upload) {
    await page.setInputFiles(step.upload, step.file);
  } else if (step.download) {
    const [file] = await Promise.all([page.waitForEvent('download'), page.click(step.download)]);
    await file.saveAs(step.to);
    return file.suggestedFilename();
  } else if (step.see) {
    await page.locator(`${step.see} >> visible=true`).first().waitFor();
  } else if (step.gone) {
    await page.locator(`${step.gone} >> visible=true`).first().waitFor({ state: 'hidden' });
  } else if (step.read) {
    return page.locator(step.read).evaluateAll((all) => all.filter((e) => e.checkVisibility()).map((e) => e.innerText.trim()));
  } else if (step.values) {
    return page.locator(step.values).evaluateAll((all) => all.map((e) => e.value));
  } else if (step.attribute) {
    return page.locator(step.of).evaluateAll((all, name) => all.map((e) => e.getAttribute(name) ?? ''), step.attribute);
  } else if (step.focus) {
    return page.evaluate(focused);
  } else if (step.where) {
    return page.url();
  } else if (step.survey) {
    return page.evaluate(survey);
  } else if (step.look) {
    return { measure: await page.evaluate(measure), axe: await axe(page) };
  } else {
    fail('unknown step');
  }
  return undefined;
}

async function run(tab, steps) {
  for (const [i, step] of steps.entries()) {
    await act(tab, step, (why) => { throw new Error(`step ${i + 1} ${JSON.stringify(step)}: ${why}; at ${tab.page.url()}`); });
  }
}

// converse does one step and says what came of it. One that fails may be
// followed by others. A page that was left while it was read is read again.
async function converse(tab, step) {
  for (let tries = 0; ; tries++) {
    try {
      if (tries > 0) await tab.page.waitForLoadState('load');
      return { value: await act(tab, step, (why) => { throw new Error(why); }) };
    } catch (err) {
      if (tries === 4 || !/context was destroyed|because of a navigation/.test(err.message)) return { error: `${err.message}; at ${tab.page.url()}` };
    }
  }
}

// open begins a scenario: one page in a profile of its own.
async function open(scenario) {
  const seen = { measures: {}, axe: {}, tabs: {}, console: [], foreign: [] };
  const visited = new Set(); // addresses of pages
  const noted = []; // on the console, each with the address that could not be loaded
  const context = await browser.newContext({
    viewport: { width: scenario.width ?? 1280, height: scenario.height ?? 800 }, colorScheme: scenario.scheme ?? 'light',
    locale: scenario.locale ?? 'en-US', reducedMotion: scenario.steps ? 'no-preference' : 'reduce',
  });
  const page = await context.newPage();
  page.setDefaultTimeout(scenario.timeout ?? 15000);
  const answer = { status: 0 };
  page.on('response', (r) => {
    if (r.request().isNavigationRequest() && r.frame() === page.mainFrame()) {
      answer.status = r.status();
      visited.add(r.url());
    }
  });
  const watched = (url) => scenario.pages.some((p) => url === p || url.startsWith(`${p}/`));
  page.on('console', (m) => {
    const own = m.text().startsWith('Failed to load resource') ? m.location().url : '';
    const refused = scenario.refusals && / status of 4\d\d /.test(m.text()) && /\/api\/v1\/|\/assets\/mark\.svg/.test(m.location().url);
    if (['error', 'warning'].includes(m.type()) && watched(page.url()) && !refused) noted.push({ own, text: `${page.url()}: ${m.text()} ${m.location().url}`.trim() });
  });
  page.on('pageerror', (e) => seen.console.push(`${page.url()}: ${e.message}`));
  await context.route('**/*', (route) => {
    const r = route.request();
    const { origin } = new URL(r.url());
    if (scenario.pages.includes(origin) || (scenario.own ?? []).includes(origin)) return route.continue();
    if (r.isNavigationRequest() || watched(r.frame().url())) seen.foreign.push(r.url());
    return route.abort();
  });
  const end = async () => {
    await context.close();
    // The browser notes every page that answers with an error, before it is there.
    seen.console.push(...noted.filter((n) => !visited.has(n.own)).map((n) => n.text));
    return seen;
  };
  return { page, answer, seen, end };
}

// tell does what one line says, with the scenario's tab, and answers the tab.
async function tell(tab, { id, scenario, step }) {
  const say = (what) => process.stdout.write(`${JSON.stringify({ id, ...what })}\n`);
  if (step) {
    say(await converse(tab, step));
    return tab;
  }
  let error;
  if (scenario) {
    tab = await open(scenario);
    if (!scenario.steps) return tab;
    error = await run(tab, scenario.steps).then(() => undefined, (err) => err.message);
  }
  say({ seen: { ...await tab.end(), error } });
  return undefined;
}

const tabsOf = new Map(); // by the scenario's number, as promises: each waits for the line before
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const told = JSON.parse(line);
  const next = Promise.resolve(tabsOf.get(told.id)).then((tab) => tell(tab, told));
  tabsOf.set(told.id, next);
}
await browser.close();
