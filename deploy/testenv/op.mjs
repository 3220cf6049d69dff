// A real OpenID provider for the end-to-end tests: npm oidc-provider, with
// people whose groups come in every way there is.
//
//   node op.mjs '{"redirect_uris":[...],"post_logout_redirect_uris":[...]}'
//
// It prints one line of JSON, {"issuer":"http://127.0.0.1:PORT"}, when it
// listens, and ends when its standard input does. Options:
//
//   port           0 (default) takes a free one
//   id_token       true (default) puts the claims of scopes into the ID token;
//                  false leaves them to userinfo, as the specification has it
//                  (OpenID Connect Core 1.0 section 5.4)
//   people         a JSON file {"alice": {"groups": [...]}, ...} that is read at
//                  every token and replaces the people below
//   client         members of the client beside or in place of those below
//   par            "required": a request that was not pushed is refused
//   access_token_seconds
//   backchannel_logout_uri, backchannel_logout_session_required
//                  of the client (OpenID Connect Back-Channel Logout 1.0)
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import process from 'node:process';

// The library warns about its defaults on standard output, which is ours.
console.info = console.warn = console.error;
const { default: Provider } = await import('oidc-provider');

const options = { port: 0, id_token: true, redirect_uris: [], post_logout_redirect_uris: [], ...JSON.parse(process.argv[2] ?? '{}') };

const many = Array.from({ length: 2000 }, (_, i) => `team-${String(i).padStart(4, '0')}`);
const people = {
  alice: { groups: ['engineering', 'admins'] },
  bob: { groups: ['engineering'] },
  carol: { groups: [] },
  dora: {}, // no claim at all
  erik: { realm_access: { roles: ['engineering', 'ops'] } },
  many: { groups: many },
};

function claimsOf(login) {
  const all = options.people ? JSON.parse(readFileSync(options.people, 'utf8')) : people;
  if (!Object.hasOwn(all, login)) return undefined;
  return {
    sub: login, preferred_username: login, name: `${login[0].toUpperCase()}${login.slice(1)} Example`,
    email: `${login}@example.com`, email_verified: true, ...all[login],
  };
}

const server = createServer({ maxHeaderSize: 16 * 1024 });
await new Promise((done) => server.listen(options.port, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;

const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'groupgate', client_secret: 'groupgate-test-secret-0123456789abcdef',
    redirect_uris: options.redirect_uris, post_logout_redirect_uris: options.post_logout_redirect_uris,
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    ...options.client,
    ...(options.backchannel_logout_uri && {
      backchannel_logout_uri: options.backchannel_logout_uri,
      backchannel_logout_session_required: options.backchannel_logout_session_required ?? false,
    }),
  }],
  scopes: ['openid', 'profile', 'email', 'groups', 'offline_access'],
  claims: {
    openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'],
    groups: ['groups', 'realm_access'],
  },
  conformIdTokenClaims: !options.id_token,
  pkce: { required: () => true },
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  findAccount: async (ctx, id) => (claimsOf(id) ? { accountId: id, claims: async () => claimsOf(id) } : undefined),
  ttl: { AccessToken: options.access_token_seconds ?? 3600, IdToken: 300, RefreshToken: 86400, Interaction: 3600, Session: 86400, Grant: 86400 },
  cookies: { keys: ['a key of no worth: the provider lives as long as a test'] },
  // The library's dispatcher refuses loopback addresses, and there is nothing
  // else here.
  fetch: (url, { dispatcher, ...rest }) => globalThis.fetch(url, rest),
  features: {
    devInteractions: { enabled: true },
    pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: options.par === 'required' },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      // The library's own pages fetch a font from elsewhere.
      logoutSource: async (ctx, form) => {
        ctx.body = page('Sign out', `${form}<button type="submit" form="op.logoutForm" value="yes" name="logout">Yes, sign me out</button>`);
      },
      postLogoutSuccessSource: async (ctx) => { ctx.body = page('Signed out at the provider', ''); },
    },
  },
});
provider.on('server_error', (ctx, err) => console.error(err));
provider.on('backchannel.error', (ctx, err) => console.error(err));
server.on('request', provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
