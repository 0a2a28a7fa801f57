/* Episodes that stood before the same decision, side by side. */
const mostBeside = 12;
const shortTexts = {characters: 240, lines: 6};

/* Those to be compared with an episode, and the turn at which they part: all that went
   on from the same history, whoever they branch from. */
function rivalsOf(tree, id) {
  const turn = tree.nodes[id].tau;
  const history = (i) => turn === 1 ? -1 : ownerOf(tree, i, turn - 1);
  const ids = tree.nodes.map((_, i) => i).filter((i) =>
    tree.nodes[i].tau <= turn && lastTurn(tree.nodes[i]) >= turn && history(i) === history(id));
  return {turn, ids: ids.includes(id) ? ids : [id, ...ids]};
}

function besideView(tree, id) {
  const {turn, ids} = rivalsOf(tree, id);
  const shown = ids.slice(0, mostBeside);
  if (ids.includes(id) && !shown.includes(id)) shown[shown.length - 1] = id;
  const last = Math.max(turn, ...shown.map((i) => lastTurn(tree.nodes[i])));
  const turns = Array.from({length: last - turn + 1}, (_, i) => turn + i);
  const what = turn === 1 ? 'Episodes from the start' : `From turn ${turn} on`;
  return [
    html('h3', {}, what),
    html('p', {class: 'sub'}, `${shown.length} of ${ids.length} episodes that stood before the same decision · `, besideButton(tree, id)),
    html('div', {class: 'scroll'}, html('table', {class: 'beside'},
      html('thead', {}, html('tr', {}, html('th', {}, 'turn'), shown.map((i) => besideHead(tree, i, i === id, turn)))),
      html('tbody', {}, turns.map((t) => html('tr', {}, html('th', {}, t), shown.map((i) => besideCell(tree, i, t, shown[0])))))))];
}

function besideHead(tree, i, chosen, turn) {
  const node = tree.nodes[i];
  const hinted = node.parent !== undefined && node.tau === turn && node.experience;
  return html('th', {class: toneOf(node) + (chosen ? ' chosen' : '')},
    nodeLink(i, nameOf(node, i)), ' ', html('span', {class: 'outcome'}, (node.success ? '✓ ' : '') + outcomeOf(node)),
    hinted ? html('div', {class: 'hint'}, folded(node.experience, shortTexts)) : null);
}

function besideCell(tree, i, turn, first) {
  const pair = pathOf(tree, i)[turn - 1];
  if (!pair) return html('td', {class: 'none'});
  const [owner, found] = pair;
  const said = found.action || found.response || '(nothing)';
  const other = pathOf(tree, first)[turn - 1];
  const same = i !== first && other && (other[1].action || other[1].response || '(nothing)') === said;
  return html('td', {class: same ? 'same' : null},
    html('div', {class: 'action'}, folded(found.response || '(nothing)', shortTexts), chipsOf(found)),
    tokensFold(tree, owner, turn, found));
}
