function spreadApart(places, gap) {
  const order = places.map((_, i) => i).sort((a, b) => places[a] - places[b]);
  const moved = order.map((i) => places[i]);
  for (let round = 0; round < 200; round++) {
    let still = true;
    for (let i = 1; i < moved.length; i++) {
      const push = (gap - (moved[i] - moved[i - 1])) / 2;
      if (push > 1e-6) { moved[i - 1] -= push; moved[i] += push; still = false; }
    }
    if (still) break;
  }
  const result = [];
  order.forEach((place, i) => { result[place] = moved[i]; });
  return result;
}

function drawPassk(place, arms) {
  const width = Math.max(place.clientWidth, 320);
  const narrow = width < 620;
  const height = narrow ? 320 : 440;
  // Names of arms stand there; those of several runs are long.
  const named = 14 + 8.2 * Math.max(...arms.map((arm) => `${arm.name}  100.0%`.length));
  const pad = {left: 46, right: narrow ? 14 : Math.min(Math.max(150, named), width / 2), top: 14, bottom: 48};
  const points = arms.flatMap((arm) => arm.points);
  const ks = [...new Set(points.map((p) => p.k))].sort((a, b) => a - b);
  const top = Math.min(1, Math.ceil(10 * Math.max(...points.map((p) => p.hi), 0.05)) / 10);
  const span = Math.log2(ks[ks.length - 1] / ks[0]) || 1;
  const x = (k) => pad.left + Math.log2(k / ks[0]) / span * (width - pad.left - pad.right);
  const y = (share) => pad.top + (1 - share / top) * (height - pad.top - pad.bottom);
  const path = (list) => 'M' + list.map(([a, b]) => a.toFixed(1) + ',' + b.toFixed(1)).join('L');
  const picture = svg('svg', {viewBox: `0 0 ${width} ${height}`, height});

  const step = top > 0.5 ? 0.2 : top > 0.2 ? 0.1 : 0.05;
  for (let share = 0; share <= top + 1e-9; share += step) {
    picture.append(
      svg('line', {class: 'grid-line', x1: pad.left, x2: width - pad.right, y1: y(share), y2: y(share)}),
      svg('text', {class: 'tick', x: pad.left - 10, y: y(share) + 4, 'text-anchor': 'end'}, Math.round(100 * share) + '%'));
  }
  for (const k of ks) picture.append(svg('text', {class: 'tick', x: x(k), y: height - 24, 'text-anchor': 'middle'}, k));
  picture.append(svg('text', {class: 'tick', x: (pad.left + width - pad.right) / 2, y: height - 3, 'text-anchor': 'middle'}, 'k, samples per task'));

  const ends = arms.map((arm) => y(arm.points[arm.points.length - 1].mean));
  const labels = spreadApart(ends, 21);
  const groups = arms.map((arm, i) => {
    const color = `var(--arm-${i})`;
    const group = svg('g', {class: 'arm'},
      svg('path', {class: arm.band ? 'band' : 'band hidden', style: 'fill:' + color, d: path([
        ...arm.points.map((p) => [x(p.k), y(p.hi)]),
        ...[...arm.points].reverse().map((p) => [x(p.k), y(p.lo)])]) + 'Z'}),
      svg('path', {class: 'curve', style: 'stroke:' + color, 'stroke-dasharray': arm.dash, d: path(arm.points.map((p) => [x(p.k), y(p.mean)]))}),
      arm.points.map((p) => svg('circle', {class: 'dot', r: 4.2, cx: x(p.k), cy: y(p.mean), style: 'fill:' + color})));
    picture.append(group);
    return group;
  });
  const focus = (chosen) => groups.forEach((group, i) => {
    group.classList.toggle('faded', chosen !== null && i !== chosen);
    group.classList.toggle('chosen', i === chosen);
  });
  if (!narrow) arms.forEach((arm, i) => {
    const share = arm.points[arm.points.length - 1].mean;
    picture.append(svg('text', {class: 'end', x: width - pad.right + 14, y: labels[i] + 5, style: `fill:var(--arm-${i})`,
      onpointerenter: () => focus(i), onpointerleave: () => focus(null)},
      arm.name + '  ' + (100 * share).toFixed(1) + '%'));
  });
  place.replaceChildren(picture);
  if (narrow) place.append(html('p', {class: 'note'}, arms.map((arm, i) => [
    html('i', {class: 'swatch', style: `background:var(--arm-${i})`}), arm.name + '   '])));
  addTip(place, picture, {arms, ks, x, width, height, pad});
}

function addTip(place, picture, {arms, ks, x, width, height, pad}) {
  const guide = svg('line', {class: 'guide', y1: pad.top, y2: height - pad.bottom, visibility: 'hidden'});
  const tip = html('div', {class: 'tip', hidden: ''});
  picture.append(guide);
  place.append(tip);
  const show = (event) => {
    const left = picture.getBoundingClientRect().left;
    const nearest = (a, b) => Math.abs(x(a) - event.clientX + left) < Math.abs(x(b) - event.clientX + left) ? a : b;
    const k = ks.reduce(nearest);
    guide.setAttribute('x1', x(k));
    guide.setAttribute('x2', x(k));
    guide.setAttribute('visibility', 'visible');
    const rows = arms.map((arm, i) => ({arm, i, p: arm.points.find((p) => p.k === k)}))
      .filter((row) => row.p).sort((a, b) => b.p.mean - a.p.mean);
    tip.replaceChildren(html('b', {}, 'Pass@' + k), html('table', {}, rows.map(({arm, i, p}) => html('tr', {},
      html('td', {}, html('i', {class: 'swatch', style: `background:var(--arm-${i})`}), arm.name),
      html('td', {class: 'num'}, html('b', {}, (100 * p.mean).toFixed(1) + '%')),
      html('td', {class: 'num note'}, `${(100 * p.lo).toFixed(1)} – ${(100 * p.hi).toFixed(1)}`)))));
    tip.hidden = false;
    const place = x(k) + 16 + tip.offsetWidth > width ? x(k) - 16 - tip.offsetWidth : x(k) + 16;
    tip.style.left = Math.max(0, place) + 'px';
  };
  picture.addEventListener('pointermove', show);
  picture.addEventListener('pointerleave', () => {
    tip.hidden = true;
    guide.setAttribute('visibility', 'hidden');
  });
}
