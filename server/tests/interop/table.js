// The page with the result of a run.

/** @param lines those of the publishers and codecs that were tried, with a cell for each viewer. */
export function page({ publishers, viewers, lines, codecs }) {
  const text = [
    '# Real clients',
    '',
    'Every publisher with every codec that it can send, and every viewer that can decode it, through one server: written by',
    '`make interop`, which installs the clients and runs them. A pair passes when, over 5 s, the viewer decodes the source\'s frames',
    '(90 % or more of them), its decoded sound has energy, and no packet is missing. The viewers of a line watch at the same time; one',
    'that fails is tried once more by itself, since all of them share one machine.',
    '',
    '| publisher | codec | ' + viewers.map(({ name }) => name).join(' | ') + ' |',
    '| --- | --- |' + viewers.map(() => ' --- |').join(''),
  ];
  const notes = [];
  const note = (reason) => {
    if (!notes.includes(reason)) notes.push(reason);
    return `– (${notes.indexOf(reason) + 1})`;
  };
  for (const publisher of publishers) {
    for (const codec of codecs) {
      const found = lines.find((line) => line.publisher === publisher && line.codec === codec);
      const cell = ({ name }) => {
        const { passed, fault, cannot } = found.cells[name];
        return passed ? 'yes' : fault ? `**no**: ${fault.replaceAll('|', '/')}` : note(cannot);
      };
      const cells = found ? viewers.map(cell) : viewers.map(() => note(publisher.cannot[codec] ?? 'not in this run'));
      text.push(`| ${publisher.name} | ${codec} | ${cells.join(' | ')} |`);
    }
  }
  text.push('', 'Why a cell is empty:', '', ...notes.map((reason, index) => `${index + 1}. ${reason}`));
  text.push('', '## Versions', '', '| client | version |', '| --- | --- |');
  const versions = new Map([...publishers, ...viewers].map(({ name, version }) => [version, name.split(',')[0]]));
  for (const [version, name] of versions) text.push(`| ${name} | ${version} |`);
  return `${text.join('\n')}\n`;
}
