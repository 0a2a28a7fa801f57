const lastTurn = (node) => node.tau + (node.turns || []).length - 1;

/* An evaluated episode is one of many samples, any other a node of its tree. */
const nameOf = (node, id) => node.sample === undefined ? `#${id}` : `sample ${node.sample}`;

function toneOf(node) {
  if (node.success) return 'solved';
  if (node.error || node.ended_by === 'error' || node.ended_by === 'overlong') return 'broken';
  return node.score > 0 ? 'partly' : 'failed';
}

function outcomeOf(node) {
  if (node.success) return 'solved';
  if (!node.ended_by) return 'under way';
  const ending = {horizon: 'out of turns', terminated: 'failed', error: 'broke'};
  const how = ending[node.ended_by] || node.ended_by || 'failed';
  return node.score > 0 ? `${how}, score ${node.score.toFixed(2)}` : how;
}

/* The episode on the path to nodes[id] that owns a turn. */
function ownerOf(tree, id, turn) {
  let node = tree.nodes[id];
  while (node.parent !== undefined && turn < node.tau) {
    id = node.parent;
    node = tree.nodes[id];
  }
  return id;
}

/* All turns of an episode, replayed ones included: [owner, turn]. */
function pathOf(tree, id) {
  const node = tree.nodes[id];
  const own = (node.turns || []).map((turn) => [id, turn]);
  return node.parent === undefined ? own : [...pathOf(tree, node.parent).slice(0, node.tau - 1), ...own];
}

/* Rows from top to bottom. Below an episode come the branches that leave it,
   the latest first: then no branch line crosses another episode. */
function rowsOf(tree) {
  const leaving = tree.nodes.map(() => []);
  const rows = [];
  tree.nodes.forEach((node, id) => {
    if (node.parent !== undefined) leaving[ownerOf(tree, node.parent, node.tau)].push(id);
  });
  const visit = (id) => {
    rows.push(id);
    leaving[id].sort((a, b) => tree.nodes[b].tau - tree.nodes[a].tau || a - b).forEach(visit);
  };
  tree.nodes.forEach((node, id) => { if (node.parent === undefined) visit(id); });
  return rows;
}

function drawDiagram(tree, chosen, room, choose) {
  const rows = rowsOf(tree);
  const turns = Math.max(1, ...tree.nodes.map(lastTurn));
  const left = 118, right = 190, top = 22, rowHeight = 27;
  const cell = Math.min(52, Math.max(20, (room - left - right) / turns));
  const width = left + cell * turns + right;
  const height = top + rowHeight * rows.length + 4;
  const x = (turn) => left + cell * (turn - 0.5);
  const y = Object.fromEntries(rows.map((id, row) => [id, top + rowHeight * (row + 0.5)]));
  const every = turns > 24 ? 5 : 1;
  const numbers = Array.from({length: turns}, (_, i) => i + 1)
    .filter((turn) => turn === 1 || turn % every === 0)
    .map((turn) => svg('text', {class: 'turn-number', x: x(turn), y: 12}, turn));
  const scale = {left, cell, width, rowHeight, x, y};
  return svg('svg', {width, height, role: 'img', 'aria-label': 'Episodes of this task'}, numbers,
    rows.map((id) => drawRow(tree, id, id === chosen, scale, choose)));
}

function drawRow(tree, id, isChosen, {left, cell, width, rowHeight, x, y}, choose) {
  const node = tree.nodes[id];
  const own = node.turns || [];
  const label = node.parent === undefined ? `${nameOf(node, id)}${node.sample === undefined ? ' start' : ''}` : `#${id} from #${node.parent}`;
  const end = own.length ? lastTurn(node) : node.tau;
  return svg('g', {class: `row ${toneOf(node)}${isChosen ? ' chosen' : ''}`, onclick: () => choose(id)},
    svg('rect', {class: 'back', x: 0, y: y[id] - rowHeight / 2, width, height: rowHeight, rx: 5}),
    svg('text', {x: 8, y: y[id] + 4}, label),
    node.parent !== undefined && svg('path', {class: 'line', d: leaveAt(tree, node, id, x, y, cell)}),
    own.length > 1 && svg('path', {class: 'line', d: `M${x(node.tau)},${y[id]}H${x(end)}`}),
    own.map((turn, i) => svg('circle', {
      class: `turn${turn.hinted ? ' hinted' : ''}${turn.invalid || turn.error ? ' invalid' : ''}`,
      cx: x(node.tau + i), cy: y[id], r: turn.hinted ? 5.6 : 4.8},
      svg('title', {}, `turn ${node.tau + i}: ${turn.action || turn.response || '(nothing)'}`))),
    (node.reflections || []).map((reflection) => drawAsked(reflection, x(reflection.turn) + cell / 2, y[id])),
    svg('text', {class: 'outcome', x: x(end) + cell / 2 + 12, y: y[id] + 4}, (node.success ? '✓ ' : '') + outcomeOf(node)));
}

function leaveAt(tree, node, id, x, y, cell) {
  const from = y[ownerOf(tree, node.parent, node.tau)];
  const bend = Math.min(9, cell / 2 - 1);
  const across = x(node.tau) - cell / 2;
  return `M${across - bend},${from}q${bend},0 ${bend},${bend}V${y[id] - bend}q0,${bend} ${bend},${bend}H${x(node.tau)}`;
}

function drawAsked(reflection, x, y) {
  const r = 4;
  return svg('path', {class: reflection.requested ? 'asked used' : 'asked',
    d: `M${x},${y - r}l${r},${r}l${-r},${r}l${-r},${-r}Z`},
    svg('title', {}, `reflection after turn ${reflection.turn}`));
}

function drawLegend() {
  const mark = (shape, tone) => svg('svg', {width: 14, height: 14, class: tone}, shape);
  const dot = (kind) => svg('circle', {cx: 7, cy: 7, r: 5, class: 'turn ' + kind});
  const diamond = (kind) => svg('path', {class: 'asked ' + kind, d: 'M7,3l4,4l-4,4l-4,-4Z'});
  const entries = [
    [mark(dot(''), 'solved'), 'solved'], [mark(dot(''), 'partly'), 'partial score'],
    [mark(dot(''), 'failed'), 'failed'], [mark(dot(''), 'broken'), 'broke'],
    [mark(dot('invalid'), 'failed'), 'invalid action'], [mark(dot('hinted'), 'solved'), 'acted on a hint'],
    [mark(diamond('used')), 'reflection that opened a branch'], [mark(diamond('')), 'other reflection']];
  return html('ul', {class: 'legend'}, entries.map(([sign, text]) => html('li', {}, sign, text)));
}
