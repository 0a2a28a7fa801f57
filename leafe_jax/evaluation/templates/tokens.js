/* A turn, token by token: how likely each was, what is trained, what was read as the action. */
const spaceless = (text) => text.replace(/\s+/g, '');

/* Which tokens spell the action: [first, last], or none. */
function actionSpan(pieces, action) {
  const wanted = spaceless(action || '');
  const starts = [];
  let text = '';
  for (const piece of pieces) { starts.push(text.length); text += spaceless(piece); }
  const place = wanted ? text.lastIndexOf(wanted) : -1;
  if (place < 0) return [-1, -2];
  const first = starts.findLastIndex((start) => start <= place);
  return [first, starts.findLastIndex((start) => start < place + wanted.length)];
}

const percentOf = (logprob) => logprob > -0.0005 ? '100' : logprob < -9.2 ? '<0.01' : (100 * Math.exp(logprob)).toPrecision(logprob < -2.3 ? 2 : 3);
const signed = (value) => value.toFixed(2).replace('-0.00', '0.00').replace('-', '−');
const visible = (piece) => piece === '' ? '∅' : piece.replaceAll('\n', '↵\n').replaceAll('\t', '⇥\t');

const tokenKinds = {advice: 'hint, left out in training', opener: 'opens the response', prompt: 'prompt', said: 'response'};

function tokenMark(piece, kind, logprob, inAction) {
  const known = logprob !== undefined;
  const surprise = known ? Math.min(1, -logprob / 4) : 0;
  return html('span', {class: `tok ${kind}${inAction ? ' act' : ''}`, style: known ? `--s: ${Math.round(100 * surprise)}%` : null,
    title: known ? `${percentOf(logprob)} %, log p ${signed(logprob)}` : tokenKinds[kind]}, visible(piece));
}

const roleNames = {cf: 'D_cf: the corrected action, trained without the hint', reh: 'D_reh: rehearsal of a success'};
function roleLine(role) {
  if (!role.kind) return html('span', {class: 'chip'}, `not in D_cf: ${role.why}`);
  return html('span', {class: 'chip good'}, `loss weight ${role.weight} · ${roleNames[role.kind]}${role.drawn ? '' : ', if drawn'}`);
}

function tokenStrip(found, turn, under = []) {
  const logprobs = found.logprobs || [], response = found.response || [];
  const [first, last] = actionSpan(response, turn.action || turn.response);
  const worst = logprobs.reduce((best, value, i) => value < logprobs[best] ? i : best, 0);
  const marks = (pieces, kind) => (pieces || []).map((piece) => tokenMark(piece, kind));
  const sum = logprobs.reduce((a, b) => a + b, 0);
  return [
    found.prompt ? html('details', {class: 'asked'}, html('summary', {}, `prompt: ${found.asked} tokens${found.asked > found.prompt.length ? `, the first ${found.prompt.length}` : ''}`),
      html('div', {class: 'strip'}, marks(found.prompt, 'prompt'))) : null,
    html('div', {class: 'strip', onclick: pointAt}, marks(found.hint, 'advice'), marks(found.opener, 'opener'),
      response.map((piece, i) => tokenMark(piece, 'said', logprobs[i], i >= first && i <= last))),
    html('p', {class: 'told'}, response.length ? `log p of the response ${signed(sum)}, ${signed(sum / response.length)} a token` +
      (logprobs.length ? `; least likely “${visible(response[worst]).trim()}” (${percentOf(logprobs[worst])} %)` : '') : 'nothing was said'),
    under.map(([arm, values]) => html('div', {class: 'under'},
      html('p', {class: 'told'}, `${arm}, without a hint: log p ${signed(values.reduce((a, b) => a + b, 0))}`),
      html('div', {class: 'strip'}, response.map((piece, i) => tokenMark(piece, 'said', values[i], i >= first && i <= last))))),
    html('p', {class: 'roles'}, (found.roles || []).map(roleLine), !(found.roles || []).length && !found.unknown && trees[view.task].arm === undefined ?
      html('span', {class: 'chip'}, 'not trained') : null)];
}

/* What a pointer over a token says, for those who have none. */
function pointAt(event) {
  const token = event.target.closest('.tok');
  if (token) event.currentTarget.nextElementSibling.textContent = `“${token.textContent.trim()}”: ${token.title}`;
}

async function tokensNow() {
  if (!view.tokens) {
    const entry = trees[view.task];
    const found = await entry.tokens();
    if (trees[view.task] !== entry) return null;
    view.tokens = found || {nodes: null, note: 'Tokens of this tree found no room in the page; tools.watch shows those of every tree.'};
  }
  return view.tokens;
}

/* [arm, log-probabilities] of a turn under policies that scored it afterwards. */
const underOf = (found, owner, place) => Object.entries(found.under || {}).map(([arm, nodes]) => [arm, nodes[owner][place]]);

function tokensFold(tree, owner, index, turn) {
  if (!turn.tokens) return null;
  const place = html('div', {class: 'spelt'}, 'reading; the first time takes some seconds …');
  const open = async (event) => {
    if (!event.target.open || place.dataset.done) return;
    place.dataset.done = 'yes';
    let found;
    try { found = await tokensNow(); } catch (error) { delete place.dataset.done; place.textContent = String(error.message || error); return; }
    if (!found) return;
    const record = found.nodes && found.nodes[owner][index - tree.nodes[owner].tau];
    place.replaceChildren(...[found.note ? html('p', {class: 'told'}, found.note) : null,
      ...(record ? tokenStrip(record, turn, underOf(found, owner, index - tree.nodes[owner].tau)).flat() : [])].filter(Boolean));
  };
  const sum = turn.logprob === undefined ? '' : `, log p ${signed(turn.logprob)}`;
  return html('details', {class: 'tokens', ontoggle: open},
    html('summary', {}, `${turn.tokens} token${turn.tokens === 1 ? '' : 's'}${sum}`), place);
}
