// A real SCIM 2.0 service provider for the tests: npm scimmy with
// scimmy-routers, which do filters, PATCH and errors; what they keep is in
// memory here.
//
//   node scim.mjs '{"token":"..."}'
//
// It prints one line of JSON, {"url":"http://127.0.0.1:PORT/scim/v2"}, when it
// listens, and ends when its standard input does. Options:
//
//   token   what bearer tokens begin with; each has people and groups of its own
//
// A token that ends in "-listed" has users that list their groups.
import process from 'node:process';
import express from 'express';
import SCIMMY from 'scimmy';
import SCIMMYRouters from 'scimmy-routers';

const options = JSON.parse(process.argv[2] ?? '{}');
const spaces = new Map();
const spaceOf = (token) => spaces.get(token) ?? spaces.set(token, { User: new Map(), Group: new Map(), listed: token.endsWith('-listed') }).get(token);
let last = 0;

const missing = (id) => new SCIMMY.Types.Error(404, null, `Resource ${id} not found`);

function whole(kind, one, kept) {
  if (kind !== 'User' || !kept.listed) return one;
  const groups = [...kept.Group.values()].filter((g) => (g.members ?? []).some((m) => m.value === one.id));
  return { ...one, groups: groups.map((g) => ({ value: g.id, display: g.displayName, type: 'direct' })) };
}

function keep(kind, unique, fold) {
  SCIMMY.Resources.declare(SCIMMY.Resources[kind])
    .ingress((resource, data, token) => {
      const kept = spaceOf(token);
      const all = kept[kind];
      const id = resource.id ?? String(++last);
      if (resource.id && !all.has(id)) throw missing(id);
      for (const other of all.values()) {
        if (other.id !== id && fold(other[unique]) === fold(data[unique])) throw new SCIMMY.Types.Error(409, 'uniqueness', `${unique} is taken`);
      }
      const now = new Date().toISOString();
      const one = { ...JSON.parse(JSON.stringify(data)), id, meta: { created: all.get(id)?.meta.created ?? now, lastModified: now } };
      delete one.groups;
      all.set(id, one);
      return whole(kind, one, kept);
    })
    .egress((resource, token) => {
      const kept = spaceOf(token);
      if (!resource.id) return [...kept[kind].values()].map((one) => whole(kind, one, kept));
      if (!kept[kind].has(resource.id)) throw missing(resource.id);
      return whole(kind, kept[kind].get(resource.id), kept);
    })
    .degress((resource, token) => {
      if (!spaceOf(token)[kind].delete(resource.id)) throw missing(resource.id);
    });
}
keep('User', 'userName', (s) => s.toLowerCase());
keep('Group', 'displayName', (s) => s);

const app = express();
app.use('/scim/v2', new SCIMMYRouters({
  type: 'bearer',
  baseUri: () => '',
  handler: (request) => {
    if (!(request.header('Authorization') ?? '').startsWith(`Bearer ${options.token}`)) throw new Error('not authorised');
  },
  context: (request) => request.header('Authorization').slice('Bearer '.length),
}));
const server = app.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/scim/v2` }));
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
