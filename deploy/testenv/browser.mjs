// Drives Chromium through a scenario and says what it saw.
//
//   node browser.mjs < scenario.json
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
//   {"shot": FILE}                      the whole page, PNG
//   {"measure": NAME}                   title, size and what sticks out sideways
//   {"size": [WIDTH, HEIGHT]}, {"scheme": "dark"}, {"text": "200%"}
//                                       of the page that is open
//   {"axe": NAME}                       what axe-core finds wrong with the page
//   {"tabs": NAME}                      what Tab reaches, one after the other
//   {"tab": SELECTOR}                   press Tab until it has the focus
//   {"type": TEXT}                      with the keyboard, where the focus is
//   {"press": KEY}                      and, after Enter, wait for the page it leads to
//
// It prints {"measures":{...},"axe":{...},"tabs":{...},"console":[...],"foreign":[...],"error":"..."}:
// what watched pages wrote to the console as a warning or an error (a breach of
// the Content-Security-Policy is one), and what they asked of other origins.
import process from 'node:process';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

let input = '';
for await (const chunk of process.stdin) input += chunk;
const scenario = JSON.parse(input);
const seen = { measures: {}, axe: {}, tabs: {}, console: [], foreign: [] };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
});

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
// it leaves out unless asked.
async function axe(page) {
  const found = await new AxeBuilder({ page }).options({ rules: { 'target-size': { enabled: true } } }).analyze();
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

async function run(page, answer) {
  for (const [i, step] of scenario.steps.entries()) {
    const fail = (why) => { throw new Error(`step ${i + 1} ${JSON.stringify(step)}: ${why}; at ${page.url()}`); };
    if (step.goto) {
      await page.goto(step.goto, { waitUntil: 'load' });
    } else if (step.fill) {
      await page.fill(step.fill, step.value);
    } else if (step.click) {
      await page.click(step.click);
      await page.waitForLoadState('load');
    } else if (step.expect) {
      await page.getByText(step.expect).first().waitFor({ state: 'visible' });
    } else if (step.status) {
      if (answer.status !== step.status) fail(`the status is ${answer.status}`);
    } else if (step.url) {
      await page.waitForURL((u) => u.href.includes(step.url));
    } else if (step.shot) {
      await page.screenshot({ path: step.shot, fullPage: true });
    } else if (step.measure) {
      seen.measures[step.measure] = await page.evaluate(measure);
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
    } else {
      fail('unknown step');
    }
  }
}

try {
  const context = await browser.newContext({
    viewport: { width: scenario.width ?? 1280, height: scenario.height ?? 800 }, colorScheme: scenario.scheme ?? 'light',
    locale: scenario.locale ?? 'en-US',
  });
  const page = await context.newPage();
  page.setDefaultTimeout(scenario.timeout ?? 15000);
  const answer = { status: 0 };
  page.on('response', (r) => {
    if (r.request().isNavigationRequest() && r.frame() === page.mainFrame()) answer.status = r.status();
  });
  const watched = (url) => scenario.pages.some((p) => url === p || url.startsWith(`${p}/`));
  page.on('console', (m) => {
    // The browser itself notes every page that answers with an error.
    const own = m.text().startsWith('Failed to load resource') && m.location().url === page.url();
    if (['error', 'warning'].includes(m.type()) && watched(page.url()) && !own) seen.console.push(`${page.url()}: ${m.text()}`);
  });
  page.on('pageerror', (e) => seen.console.push(`${page.url()}: ${e.message}`));
  await context.route('**/*', (route) => {
    const r = route.request();
    const { origin } = new URL(r.url());
    if (scenario.pages.includes(origin) || (scenario.own ?? []).includes(origin)) return route.continue();
    if (r.isNavigationRequest() || watched(r.frame().url())) seen.foreign.push(r.url());
    return route.abort();
  });
  await run(page, answer);
} catch (err) {
  seen.error = err.message;
} finally {
  await browser.close();
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
