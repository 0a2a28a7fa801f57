/* Follows runs: asks for their state every two seconds and draws what has changed. */
const every = {reading: 100, seen: 2000, hidden: 20000};
const drawn = {};
const opened = new Set();
let whose = null, moreLines = false, browsing = false, latest = null, listing = false;
const lists = new Map(); // run|source|file -> {version, entries}

async function ask(path, query = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, {cache: 'no-store', credentials: 'same-origin'});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
}

function redraw(id, data, draw) {
  const key = JSON.stringify(data);
  if (drawn[id] === key) return;
  drawn[id] = key;
  draw(data);
}

const percentage = (part, whole) => whole ? (100 * part / whole).toFixed(1) : '–';
const thousands = (number) => String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, '\u2009');
const plural = (count, unit) => `${thousands(count)} ${unit}${count === 1 ? '' : 's'}`;

function spanOf(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function bytesOf(count) {
  return count < 1e9 ? `${(count / 1e6).toFixed(0)} MB` : `${(count / 1e9).toFixed(count < 1e10 ? 2 : 1)} GB`;
}

function rateOf(bar) {
  if (bar.rate === null) return '';
  if (bar.rate >= 1) return ` · ${bar.rate.toFixed(1)} ${bar.unit}s a second`;
  return ` · ${spanOf(1 / bar.rate)} ${/^[aeiou]/.test(bar.unit) ? 'an' : 'a'} ${bar.unit}`;
}

/* Cards. */

const tile = (value, unit, text) => html('div', {}, html('dt', {}, text), html('dd', {}, value, value === '–' ? '' : html('small', {}, unit)));

function segment(phase, bar) {
  const share = phase.state === 'now' && bar && bar.total ? 100 * bar.done / bar.total : 100;
  return html('div', {class: `segment ${phase.state}`, style: phase.state === 'now' ? `--done: ${Math.max(6, share)}%` : null,
    title: `${phase.name}: ${phaseText(phase)}`});
}

function phaseText(phase) {
  if (phase.state === 'done') return phase.wall_s === null ? 'done' : `${spanOf(phase.wall_s)}${phase.resumed ? ', resumed' : ''}`;
  if (phase.state === 'now') return 'under way';
  return phase.expected_s === null ? 'to come' : `about ${spanOf(phase.expected_s)}, as ${phase.like}`;
}

function nowLine(run) {
  const {bar, phases} = run;
  const now = phases.find((phase) => phase.state === 'now');
  if (!now) return null;
  const figures = Object.entries(bar ? bar.figures : {}).map(([name, value]) => `${name.replaceAll('_', ' ')} ${value}`).join(' · ');
  return html('div', {class: 'now-line'},
    html('span', {}, html('b', {}, now.name), bar ? ` · ${thousands(bar.done)} of ${plural(bar.total, bar.unit)}${rateOf(bar)}` : ' · preparing'),
    html('span', {}, figures));
}

function leftLine({left, bar, status, phases}) {
  if (status.word !== 'running' && status.word !== 'silent' || !phases.some((phase) => phase.state === 'now')) return null;
  const known = bar && bar.left_s !== null;
  const after = left.known_s - (known ? bar.left_s : 0);
  const rest = left.unknown.map((name) => phases.some((phase) => phase.name === name && phase.state === 'now') ? 'this phase' : name);
  const names = rest.slice(0, 4).join(', ') + (rest.length > 4 ? ` and ${rest.length - 4} more` : '');
  return html('p', {class: 'left'}, known ? [html('b', {}, `about ${spanOf(bar.left_s)}`), ' left in this phase'] : '',
    after > 0.5 ? `${known ? ', about' : 'About'} ${spanOf(after)} in later ones` : '',
    rest.length ? `${known || after > 0.5 ? '; not' : 'Time left: not'} known yet for ${names}` : '');
}

function isOver({status}) {
  return status.word === 'finished';
}

function tilesOf({sources, memory, status}) {
  const over = isOver({status});
  const explored = sources.filter((source) => source.figures.tasks && !/^(evaluate|groups)\//.test(source.name));
  const sum = (name) => explored.reduce((total, source) => total + (source.figures[name] || 0), 0);
  const tiles = [];
  for (const source of explored.filter((source) => source.name !== 'gate').slice(0, 2)) {
    const {solved, tasks, ended, successes} = source.figures;
    tiles.push(tile(percentage(solved, tasks), '%', `${source.name}: ${solved} of ${plural(tasks, 'task')} solved${over ? '' : ' so far'}`),
      tile(percentage(successes, ended), '%', `${source.name}: of ${plural(ended, 'episode')} succeeded`));
  }
  if (sum('turns')) tiles.push(tile(percentage(sum('acted'), sum('turns')), '%', `of ${plural(sum('turns'), 'response')} held an action`),
    tile(percentage(sum('valid'), sum('turns')), '%', 'were valid actions'));
  if (sum('reflections')) tiles.push(tile(percentage(sum('usable'), sum('reflections')), '%', `of ${plural(sum('reflections'), 'reflection')} were usable`));
  if (memory && memory.now) tiles.push(over ? tile(...bytesOf(memory.peak).split(' '), 'memory of the process at most') :
    tile(...bytesOf(memory.now).split(' '), `memory of the process, ${bytesOf(memory.peak)} at most`));
  for (const [i, device] of (memory && memory.devices || []).slice(0, 4).entries())
    tiles.push(tile(...bytesOf(device.now).split(' '), `device ${i}${device.limit ? ` of ${bytesOf(device.limit)}` : ''}`));
  return tiles.length ? html('dl', {class: 'tiles'}, tiles) : null;
}

function phaseList(run, name) {
  if (!run.phases.length) return null;
  const key = `phases ${name}`;
  return html('details', {class: 'phases', open: opened.has(key) ? '' : null, ontoggle: (event) => event.target.open ? opened.add(key) : opened.delete(key)},
    html('summary', {}, `${run.phases.filter((phase) => phase.state === 'done').length} of ${run.phases.length} phases done`),
    html('table', {}, html('tbody', {}, run.phases.map((phase) => html('tr', {}, html('th', {}, phase.name), html('td', {}, phaseText(phase)))))));
}

function card(run, i, several) {
  const {status} = run;
  return html('article', {class: 'card'},
    html('h3', {}, several ? html('i', {class: 'swatch', style: `background:var(--run-${i})`}) : null, run.name,
      html('span', {class: `badge-word ${status.word}`}, status.word),
      run.report ? html('a', {href: `report?run=${i}`, target: '_blank', rel: 'noopener'}, 'report') : null),
    status.text ? html('p', {class: 'said'}, status.text) : null,
    status.word === 'silent' ? html('p', {class: 'said'}, `No sign of life for ${spanOf(run.age_s)}.`) : null,
    run.phases.length ? html('div', {class: 'rail'}, run.phases.map((phase) => segment(phase, run.bar))) : null,
    nowLine(run), leftLine(run),
    run.unread ? html('p', {class: 'said'}, `reading: ${plural(run.unread, 'file')} of trees to go`) : null,
    run.troubles.length ? html('div', {class: 'notice trouble'}, run.troubles.map((text) => html('p', {}, text))) : null,
    tilesOf(run), phaseList(run, run.name));
}

function showCards(runs) {
  while (byId('runs').children.length > runs.length) byId('runs').lastChild.remove();
  runs.forEach((run, i) => redraw(`card ${i}`, [run.name, run.status, run.phases, run.bar, run.left, run.troubles, run.sources.map((s) => s.figures), run.memory, run.report, run.unread, runs.length, run.status.word === 'silent' ? Math.floor(run.age_s / 10) : 0], () => {
    const made = card(run, i, runs.length > 1);
    if (byId('runs').children[i]) byId('runs').children[i].replaceWith(made);
    else byId('runs').append(made);
  }));
}

/* Figures. */

function showDifferences({runs, differences}) {
  const place = byId('differences');
  place.hidden = runs.length < 2;
  place.querySelector('.scroll').replaceChildren(differences.length ? html('table', {},
    html('thead', {}, html('tr', {}, html('th', {}, 'option'), runs.map((name) => html('th', {}, name)))),
    html('tbody', {}, differences.map((row) => html('tr', {}, html('th', {scope: 'row'}, row.path), row.values.map((value) => html('td', {}, value)))))) :
    html('p', {class: 'note'}, 'The configs are the same.'));
}

function showArms({arms, over}) {
  byId('arms').hidden = !arms.length;
  byId('arms').querySelector('h2').textContent = `Solved by one of k samples${over ? '' : ', so far'}`;
  if (!arms.length) return;
  arms.forEach((arm, i) => document.documentElement.style.setProperty(`--arm-${i}`, `light-dark(${arm.ink[0]}, ${arm.ink[1]})`));
  byId('passk').hidden = arms.length > 12;
  if (arms.length <= 12) drawPassk(byId('passk'), arms);
  const row = (arm, i) => html('tr', {}, html('th', {scope: 'row'}, html('i', {class: 'swatch', style: `background:var(--arm-${i})`}), arm.name),
    html('td', {class: 'num'}, arm.tasks), html('td', {class: 'num'}, arm.samples),
    [arm.points[0], arm.points[arm.points.length - 1]].map((point) => html('td', {class: 'num'}, html('b', {}, (100 * point.mean).toFixed(1)),
      html('span', {class: 'interval'}, `${(100 * point.lo).toFixed(1)} – ${(100 * point.hi).toFixed(1)}`))));
  byId('armtable').replaceChildren(html('table', {},
    html('thead', {}, html('tr', {}, ['arm', 'tasks', 'samples', 'Pass@1, %', 'Pass@all, %'].map((text, i) => html('th', {class: i ? 'num' : null}, text)))),
    html('tbody', {}, arms.map(row))),
    html('p', {class: 'note'}, `${over ? '' : 'Of the waves that are complete; '}95 % intervals over tasks for a normal mean. The report has the final figures.`));
}

function showLines(runs) {
  const charts = new Map();
  runs.forEach((run, i) => run.scalars.forEach(({part, name, points}) => {
    const title = `${part} / ${name}`;
    if (!charts.has(title)) charts.set(title, []);
    charts.get(title).push({name: run.name, color: runs.length > 1 ? `var(--run-${i})` : 'var(--accent)', points});
  }));
  const titles = [...charts.keys()];
  const first = titles.filter((title) => shownFirst.test(title.split(' / ')[1]));
  const shown = moreLines || !first.length ? titles : first;
  byId('curves').hidden = !titles.length;
  byId('keys').replaceChildren(...(runs.length > 1 ? runs.map((run, i) => html('span', {}, html('i', {class: 'swatch', style: `background:var(--run-${i})`}), run.name)) : []));
  byId('lines').replaceChildren(...shown.map((title) => drawLines(title, charts.get(title))));
  const more = byId('morelines');
  more.hidden = titles.length === first.length || !first.length;
  more.textContent = moreLines ? 'only losses and successes' : `${titles.length - first.length} more curves`;
}

function showRecent(runs) {
  const rows = runs.flatMap((run, i) => run.recent.map((episode) => ({...episode, run: i})))
    .sort((a, b) => b.seen - a.seen).slice(0, 14);
  byId('recent').hidden = !rows.length;
  byId('recent').querySelector('.scroll').replaceChildren(html('table', {}, html('tbody', {}, rows.map((episode) => html('tr', {},
    html('td', {class: 'dim'}, timeOf(episode.seen)),
    html('td', {}, html('button', {type: 'button', onclick: () => openEpisode(episode)}, episode.title)),
    html('td', {class: 'dim'}, runs.length > 1 ? `${runs[episode.run].name} · ` : '', episode.source, episode.branch ? `, branch at turn ${episode.tau}` : ''),
    html('td', {class: toneOf(episode)}, html('span', {class: 'outcome'}, outcomeOf(episode))),
    html('td', {class: 'num dim'}, plural(episode.turns, 'turn')))))));
}

function timeOf(seconds) {
  const then = new Date(seconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return today ? then.toLocaleTimeString() : then.toLocaleString([], {dateStyle: 'medium', timeStyle: 'short'});
}

async function openEpisode(episode) {
  if (whose !== episode.run) await choose(episode.run);
  const place = trees.findIndex((entry) => entry.id === episode.task && entry.source === episode.source && (entry.file === episode.file || !episode.source.startsWith('groups/')));
  if (place < 0) return;
  Object.assign(view, {source: episode.source, kind: 'All', query: ''});
  byId('search').value = '';
  showTasks();
  await showTask(place, episode.node);
  byId('trees').scrollIntoView();
}

function showLog(runs) {
  const run = runs[Math.min(whose ?? 0, runs.length - 1)];
  byId('log').hidden = !run.log.length;
  const box = byId('log').querySelector('.scroll');
  const atEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 30 || !box.firstChild;
  box.replaceChildren(html('table', {}, html('tbody', {}, run.log.map((line) => html('tr', {class: line.level},
    html('td', {}, line.time), html('td', {}, folded(line.text, {characters: 900, lines: 5})))))));
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/* Trees. */

const labelOf = (source) => /^(evaluate|groups)\//.test(source) ? source.split('/').slice(1).join('/') : undefined;

function entryFrom(run, source, short) {
  if (source.startsWith('groups/')) short = {...short, title: `step ${Number(short.file.replace(/\D/g, ''))}: ${short.title}`};
  const query = {run, source, file: short.file, line: short.line};
  return {...short, source, arm: labelOf(source), key: JSON.stringify([run, source, short.file, short.line]), text: `${short.id} ${short.title}`.toLowerCase(),
    load: () => ask('api/tree', query), tokens: () => ask('api/tokens', query)};
}

/* The entries of a run; only lists of files that have changed are asked for. */
async function entriesOf(run) {
  const found = [];
  for (const source of latest.runs[run].sources) {
    for (const [file, version] of Object.entries(source.files)) {
      const key = `${run}|${source.name}|${file}`;
      if (!lists.has(key) || lists.get(key).version !== version) {
        const answer = await ask('api/trees', {run, source: source.name, file});
        lists.set(key, {version, entries: answer.trees.map((short) => entryFrom(run, source.name, short))});
      }
      found.push(...lists.get(key).entries);
    }
  }
  return found;
}

async function showForest() {
  if (listing) return;
  listing = true;
  try {
    const entries = await entriesOf(whose);
    byId('trees').hidden = !entries.length;
    if (!entries.length) return;
    if (!browsing) {
      browsing = true;
      await startBrowser(entries);
    } else await replaceTrees(entries);
  } finally { listing = false; }
}

/* What is read stays in view while the list around it grows. */
async function replaceTrees(entries) {
  const before = trees[view.task], node = view.node;
  trees = entries;
  if (!trees.some((entry) => entry.source === view.source)) view.source = trees[0].source;
  let place = before ? trees.findIndex((entry) => entry.key === before.key) : -1;
  if (before && place < 0) place = trees.findIndex((entry) => entry.id === before.id && entry.source === before.source);
  view.task = Math.max(0, place);
  showTasks();
  if (place < 0) return showTask(placesOf(view.source)[0]);
  const entry = trees[place];
  if (entry.version === before.version && entry.key === before.key) return;
  const tree = await entry.load();
  if (trees[view.task] !== entry || JSON.stringify(tree) === JSON.stringify(view.tree)) return;
  const same = JSON.stringify(tree.nodes[node]) === JSON.stringify(view.tree.nodes[node]);
  Object.assign(view, {tree, tokens: same ? view.tokens : null});
  showTree();
  if (!same) showEpisode();
}

async function choose(run) {
  whose = run;
  showWhose(latest.runs);
  view.tree = null;
  showLog(latest.runs);
  await showForest();
}

function showWhose(runs) {
  byId('whose').replaceChildren(...(runs.length > 1 ? runs.map((run, i) => html('button', {type: 'button', 'aria-pressed': i === whose, onclick: () => choose(i)}, run.name)) : []));
}

/* The loop. */

async function show(state) {
  latest = state;
  const {runs} = state;
  document.title = `${titleOf(runs)}${state.name} – live`;
  runs.forEach((run, i) => document.documentElement.style.setProperty(`--run-${i}`, `light-dark(${run.ink[0]}, ${run.ink[1]})`));
  redraw('differences', {runs: runs.map((run) => run.name), differences: state.differences}, showDifferences);
  showCards(runs);
  redraw('arms', {arms: state.arms, over: runs.every(isOver)}, showArms);
  redraw('lines', [moreLines, runs.map((run) => run.scalars)], () => showLines(runs));
  redraw('recent', runs.map((run) => run.recent), () => showRecent(runs));
  if (whose === null || whose >= runs.length) whose = Math.max(0, runs.findIndex((run) => run.sources.length));
  redraw('whose', [whose, runs.map((run) => run.name)], () => showWhose(runs));
  redraw('log', [whose, runs.map((run) => run.log)], () => showLog(runs));
  await showForest();
}

function titleOf(runs) {
  const bar = runs.length === 1 && runs[0].bar;
  return bar && bar.total ? `${Math.floor(100 * bar.done / bar.total)} % ${bar.name} · ` : '';
}

function say(text, lost) {
  byId('pulse').classList.toggle('lost', lost);
  byId('pulse').lastChild.textContent = text;
}

let timer = 0;
async function poll() {
  clearTimeout(timer);
  try {
    await show(await ask('api/state'));
    say(`live, as of ${new Date().toLocaleTimeString()}`, false);
  } catch (error) {
    say(`no answer from tools.watch (${error.message}); trying on`, true);
  }
  timer = setTimeout(poll, document.hidden ? every.hidden : latest && latest.runs.some((run) => run.unread) ? every.reading : every.seen);
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
byId('morelines').addEventListener('click', () => { moreLines = !moreLines; redraw('lines', [moreLines, latest.runs.map((run) => run.scalars)], () => showLines(latest.runs)); });
poll();
