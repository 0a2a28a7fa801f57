/* Entries: id, title, kind, source, episodes, branches, text to search in; of an
   evaluated arm also arm, solved, samples. load() gives the whole tree, tokens() the
   tokens of its turns, either at once or as a promise. */
let trees = [];
const kinds = {
  'All': () => true,
  'Solved': (entry) => entry.kind !== 'unsolved',
  'Solved by a branch': (entry) => entry.kind === 'solved_by_branch',
  'Unsolved': (entry) => entry.kind === 'unsolved',
  'Has branches': (entry) => entry.branches > 0,
};
const view = {task: 0, tree: null, node: 0, source: '', kind: 'All', query: '', visible: [], beside: false, tokens: null};
const longest = {characters: 600, lines: 12};
const sourcesOf = () => [...new Set(trees.map((entry) => entry.source))];
const placesOf = (source) => trees.map((_, i) => i).filter((i) => trees[i].source === source);

function firstOfInterest(tree) {
  const solved = tree.nodes.findIndex((node) => node.success);
  return solved >= 0 ? solved : Math.max(0, tree.nodes.findIndex((node) => node.parent !== undefined));
}

function showTasks() {
  const query = view.query.trim().toLowerCase();
  const ofSource = placesOf(view.source), sources = sourcesOf();
  view.visible = ofSource.filter((i) => kinds[view.kind](trees[i]) && (!query || trees[i].text.includes(query)));
  byId('sources').replaceChildren(...(sources.length > 1 || trees[0].arm ? sources : []).map((source) => html('button', {
    type: 'button', 'aria-pressed': source === view.source, onclick: () => showSource(source)}, source)));
  byId('filters').replaceChildren(...Object.keys(kinds).map((kind) => [kind, ofSource.filter((i) => kinds[kind](trees[i])).length])
    .filter(([kind, number]) => number || kind === 'All').map(([kind, number]) => html('button', {
      type: 'button', 'aria-pressed': kind === view.kind,
      onclick: () => { view.kind = kind; showTasks(); }}, `${kind} ${number}`)));
  const top = byId('tasks').scrollTop;
  byId('tasks').replaceChildren(...view.visible.map(taskEntry));
  if (!view.visible.length) byId('tasks').append(html('li', {class: 'none'}, 'No task matches.'));
  byId('tasks').scrollTop = top;
}

/* The same task of another arm, where there is one. */
function showSource(source) {
  const id = trees[view.task].id;
  Object.assign(view, {source, kind: 'All'});
  showTasks();
  const places = placesOf(source);
  return showTask(places.find((i) => trees[i].id === id) ?? places[0]);
}

const sampled = (entry) => entry.samples === undefined ? `${entry.solved} of ${entry.episodes} kept samples solved it` : `solved by ${entry.solved} of ${entry.samples} samples`;

function taskEntry(i) {
  const entry = trees[i];
  const mark = {solved_by_branch: 'solved branch', solved_by_root: 'solved', unsolved: ''}[entry.kind];
  return html('li', {}, html('button', {type: 'button', 'data-task': i, 'aria-current': i === view.task,
    onclick: () => showTask(i)},
    html('i', {class: mark, title: entry.kind.replaceAll('_', ' ')}), html('span', {class: 'title'}, entry.title),
    html('small', {}, entry.arm === undefined ? `${entry.episodes} episodes, ${entry.branches} branches` : sampled(entry))));
}

async function showTask(task, node) {
  view.task = task;
  const entry = trees[task];
  for (const button of byId('tasks').querySelectorAll('button')) {
    const current = Number(button.dataset.task) === task;
    button.setAttribute('aria-current', current);
    if (current) {
      const list = byId('tasks'), place = button.offsetTop - list.offsetTop;
      if (place < list.scrollTop || place + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = place - 60;
    }
  }
  const tree = await entry.load();
  if (trees[view.task] !== entry || !tree) return; // another one was asked for meanwhile
  Object.assign(view, {tree, tokens: null});
  showNode(Math.min(node ?? firstOfInterest(tree), tree.nodes.length - 1));
}

function showNode(id) {
  view.node = id;
  showTree();
  showEpisode();
  try { history.replaceState(null, '', '#' + new URLSearchParams({tree: trees[view.task].id, node: id, from: view.source})); } catch { /* some viewers forbid it */ }
}

function showTree() {
  const tree = view.tree, entry = trees[view.task];
  const room = byId('tree').clientWidth - 50;
  byId('tree').replaceChildren(
    html('h3', {}, tree.instruction || tree.id),
    html('div', {class: 'note'}, `${tree.id} · ${tree.split}`, entry.arm === undefined ? '' : ` · ${entry.arm}: ${sampled(entry)}`),
    html('div', {class: 'diagram'}, drawDiagram(tree, view.node, room, showNode)),
    drawLegend());
}

const nodeLink = (id, text = `#${id}`) =>
  html('button', {type: 'button', class: 'link', onclick: () => showNode(id)}, text);

function showEpisode() {
  byId('episode').classList.toggle('broad', view.beside);
  byId('episode').replaceChildren(...(view.beside ? besideView(view.tree, view.node) : episodeView(view.tree, view.node)));
}

function besideButton(tree, id) {
  const others = rivalsOf(tree, id).ids.length;
  if (others < 2 && !view.beside) return null;
  return html('button', {type: 'button', class: 'link', onclick: () => { view.beside = !view.beside; showEpisode(); }},
    view.beside ? 'this episode alone' : `side by side (${others})`);
}

function episodeView(tree, id) {
  const node = tree.nodes[id];
  const own = node.turns || [];
  const prefix = pathOf(tree, id).slice(0, node.tau - 1);
  const from = node.parent === undefined ? 'from the start' :
    ['branch of ', nodeLink(node.parent), ` at turn ${node.tau}, depth ${node.depth}`];
  const beside = besideButton(tree, id);
  return [
    html('h3', {class: toneOf(node)}, node.sample === undefined ? `Episode #${id}: ` : `Sample ${node.sample}: `, html('span', {class: 'outcome'}, outcomeOf(node))),
    html('p', {class: 'sub'}, from, ` · ${own.length} ${node.parent === undefined ? 'turns' : 'turns of its own'} · score ${node.score.toFixed(2)}`,
      beside ? [' · ', beside] : ''),
    prefix.length ? html('details', {class: 'prefix'},
      html('summary', {}, prefix.length === 1 ? 'Turn 1, restored' : `Turns 1–${prefix.length}, restored`),
      html('ol', {class: 'turns'}, prefix.map(([owner, turn], i) => turnItem(tree, node, turn, i + 1, owner, false)))) : '',
    html('ol', {class: 'turns'}, own.map((turn, i) => turnItem(tree, node, turn, node.tau + i, id, true)), endItem(node))];
}

const chipsOf = (turn) => [
  turn.reward ? html('span', {class: 'chip good'}, `reward ${turn.reward}`) : null,
  turn.invalid ? html('span', {class: 'chip warn'}, 'invalid') : null,
  turn.error ? html('span', {class: 'chip warn'}, turn.error) : null];

function turnItem(tree, node, turn, index, owner, isOwn) {
  const old = isOwn && index === node.tau && node.parent !== undefined ? pathOf(tree, node.parent)[index - 1] : null;
  const asked = isOwn ? (node.reflections || []).filter((reflection) => reflection.turn === index) : [];
  return html('li', {class: turn.hinted ? 'hinted' : null},
    html('span', {class: 'badge', title: 'turn ' + index}, index),
    html('div', {},
      html('div', {class: 'observation'}, folded(turn.observation || '')),
      isOwn && turn.hinted && html('div', {class: 'hint'}, html('small', {}, 'Hint in the prompt, left out in training'), node.experience || ''),
      html('div', {class: 'action'}, folded(turn.response || '(nothing)'), chipsOf(turn)),
      turn.action ? html('div', {class: 'instead'}, 'read as ', html('code', {}, turn.action)) : null,
      old ? insteadLine(turn, old) : null,
      tokensFold(tree, owner, index, turn),
      asked.map((reflection) => reflectionCard(tree, reflection))));
}

/* A text, or its beginning with the rest a click away. */
function folded(text, limit = longest) {
  const lines = text.split('\n');
  if (text.length <= limit.characters && lines.length <= limit.lines) return html('span', {}, text);
  let cut = Math.min(limit.characters, lines.slice(0, limit.lines).join('\n').length) >> 1;
  const space = text.slice(0, cut).search(/\s\S*$/);
  if (space > cut / 2) cut = space + 1;
  else if (/[\ud800-\udbff]/.test(text[cut - 1])) cut -= 1;
  return html('details', {class: 'fold'},
    html('summary', {}, text.slice(0, cut), html('small', {}, ` … ${text.length - cut} more characters`)), text.slice(cut));
}

function insteadLine(turn, [owner, old]) {
  const said = (t) => t.action || t.response || '(nothing)';
  if (said(turn) === said(old)) return html('div', {class: 'instead'}, 'the same action as in ', nodeLink(owner));
  return html('div', {class: 'instead'}, 'instead of ', html('s', {}, said(old)), ' in ', nodeLink(owner));
}

function reflectionCard(tree, reflection) {
  const opened = tree.nodes.findIndex((node) => node.parent === view.node && node.tau === reflection.tau);
  const when = reflection.terminal ? 'Reflection after the failure' : 'Reflection in progress';
  const tries = reflection.attempts > 1 ? `, ${reflection.attempts} tries` : '';
  let status = 'carry on';
  if (reflection.error) status = reflection.error;
  else if (reflection.tau !== undefined) status = [`back to turn ${reflection.tau}, `,
    reflection.requested ? (opened >= 0 ? ['opened ', nodeLink(opened)] : 'its branch was never started') : 'no branch asked for'];
  return html('div', {class: 'reflection' + (reflection.error ? ' bad' : '')},
    html('small', {}, `${when}${tries}: `, status),
    reflection.experience || '',
    html('details', {}, html('summary', {}, 'as sampled'), html('pre', {}, reflection.raw || '(nothing)')));
}

function endItem(node) {
  const underWay = !node.ended_by;
  return html('li', {class: 'end ' + toneOf(node)},
    html('span', {class: 'badge'}, node.success ? '✓' : underWay ? '…' : '■'),
    html('div', {},
      node.final ? html('div', {class: 'observation'}, folded(node.final)) : null,
      html('span', {class: 'chip'}, underWay ? 'under way' : `${outcomeOf(node)} (${node.ended_by})`), ' ',
      node.error ? html('span', {class: 'chip warn'}, node.error) : null));
}

function move(list, current, by) {
  const place = list.indexOf(current);
  return list[Math.min(list.length - 1, Math.max(0, place + by))];
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input, textarea, select') || !view.tree) return;
  const rows = () => rowsOf(view.tree);
  const keys = {
    j: () => showNode(move(rows(), view.node, 1)),
    k: () => showNode(move(rows(), view.node, -1)),
    J: () => view.visible.length && showTask(move(view.visible, view.task, 1)),
    K: () => view.visible.length && showTask(move(view.visible, view.task, -1)),
    s: () => { view.beside = !view.beside; showEpisode(); },
    '/': () => byId('search').focus(),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
}

/* Returns what is done when the first tree is there. */
function startBrowser(entries) {
  trees = entries;
  const wanted = new URLSearchParams(location.hash.slice(1));
  const place = trees.findIndex((entry) => entry.id === wanted.get('tree') &&
    (!wanted.has('from') || entry.source === wanted.get('from')));
  const keepHash = location.hash;
  byId('search').addEventListener('input', (event) => { view.query = event.target.value; showTasks(); });
  document.addEventListener('keydown', onKey);
  view.source = (trees[place] || trees.find((entry) => entry.source === 'explore') || trees[0]).source;
  showTasks();
  let width = byId('tree').clientWidth;
  new ResizeObserver(() => {
    if (byId('tree').clientWidth === width || !view.tree) return;
    width = byId('tree').clientWidth;
    showTree();
  }).observe(byId('tree'));
  if (place < 0) {
    return showTask(placesOf(view.source)[0]).then(() => {
      try { history.replaceState(null, '', keepHash || location.pathname); } catch { /* as above */ }
    });
  }
  return showTask(place, Number(wanted.get('node')) || 0).then(() => byId('trees').scrollIntoView({behavior: 'instant'}));
}
