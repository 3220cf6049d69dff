package claims

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
)

// cloudHosts are where Microsoft's clouds issue tokens and serve Graph
// (Microsoft Graph national cloud deployments; certificate credentials for
// the login host in China).
var cloudHosts = map[Cloud]struct{ login, graph string }{
	"global":     {"login.microsoftonline.com", "graph.microsoft.com"},
	"us-gov":     {"login.microsoftonline.us", "graph.microsoft.us"},
	"us-gov-dod": {"login.microsoftonline.us", "dod-graph.microsoft.us"},
	"china":      {"login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn"},
}

// cloudOf says which cloud an issuer is of. The two of the US government share
// their issuer; the greater is meant until the configuration says otherwise.
func cloudOf(issuer string) (Cloud, bool) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", false
	}
	switch strings.ToLower(u.Hostname()) {
	case "login.microsoftonline.com", "sts.windows.net":
		return "global", true
	case "login.microsoftonline.us":
		return "us-gov", true
	case "login.partner.microsoftonline.cn", "login.chinacloudapi.cn", "sts.chinacloudapi.cn":
		return "china", true
	}
	return "", false
}

// tenantOf is the tenant in an issuer such as
// https://login.microsoftonline.com/TENANT/v2.0, or "".
func tenantOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	tenant, rest, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if _, microsoft := cloudOf(issuer); !microsoft && rest != "v2.0" {
		return ""
	}
	return tenant
}

// GraphSettings completes "graph" from the source and the cloud; nil when there
// is none. The source's secret or key is taken for the source's own client
// only.
func (c OIDCConfig) GraphSettings() *GraphConfig {
	if c.Graph == nil {
		return nil
	}
	g := *c.Graph
	if g.Tenant == "" {
		g.Tenant = tenantOf(c.Issuer)
	}
	if g.ClientID == "" {
		g.ClientID = c.ClientID
	}
	if g.ClientID == c.ClientID && g.ClientSecret == "" && g.ClientKey == "" {
		g.ClientSecret, g.ClientKey, g.ClientCertificate, g.ClientKeyID = c.ClientSecret, c.ClientKey, c.ClientCertificate, c.ClientKeyID
	}
	if cloud, microsoft := cloudOf(c.Issuer); microsoft && g.Cloud == "" {
		g.Cloud = cloud
	}
	return g.complete()
}

// GraphSettings completes "graph" from the cloud; nil when there is none.
func (c SAMLConfig) GraphSettings() *GraphConfig {
	if c.Graph == nil {
		return nil
	}
	g := *c.Graph
	return g.complete()
}

func (g *GraphConfig) complete() *GraphConfig {
	if g.Cloud == "" {
		g.Cloud = "global"
	}
	if g.Groups == "" {
		g.Groups = SecurityGroups
	}
	if g.URL == "" {
		g.URL = "https://" + cloudHosts[g.Cloud].graph
	}
	if g.TokenURL == "" {
		g.TokenURL = "https://" + cloudHosts[g.Cloud].login + "/" + url.PathEscape(g.Tenant) + "/oauth2/v2.0/token"
	}
	return g
}

// fetchOverage asks Microsoft Graph for the groups when the source says that it
// has more than it sends, and somebody reads them. When Graph cannot say, the
// claim stays unknown and the login goes on. What the token itself names as a
// source of claims (_claim_sources) is never asked: it could be anywhere.
func (o *OIDC) fetchOverage(ctx context.Context, c, stated Claims) Claims {
	if o.graph == nil || !c.GroupsElsewhere() || !o.readsGroups() {
		return c
	}
	ids, err := o.askGraph(ctx, stated)
	if err != nil {
		o.log.Warn("Microsoft Graph did not tell the groups; they count as unknown", zap.String("source", o.name), zap.Error(err))
		return c.WithUnresolved(err.Error())
	}
	return c.WithGroups(ids, "groups")
}

// askGraph asks about the person of a verified ID token, if it is of the
// tenant that Graph is asked about.
func (o *OIDC) askGraph(ctx context.Context, stated Claims) ([]string, error) {
	oid, _ := stated.all()["oid"].(string)
	if tid, there := stated.all()["tid"]; there {
		text, _ := tid.(string)
		return o.graph.GroupsOf(ctx, oid, &text)
	}
	return o.graph.GroupsOf(ctx, oid, nil)
}

// GroupsOf is [Graph.Groups] for a login: it leaves the login some of its time,
// and answers nothing of a person of another tenant. A nil tenant is one that
// the source did not state.
func (g *Graph) GroupsOf(ctx context.Context, objectID string, tenant *string) ([]string, error) {
	if tenant != nil && isGUID(g.tenant) && !strings.EqualFold(*tenant, g.tenant) {
		return nil, errors.New("tid is another tenant's")
	}
	if end, bounded := ctx.Deadline(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*9/10)
		defer cancel()
	}
	return g.Groups(ctx, objectID)
}

func (o *OIDC) readsGroups() bool {
	for _, name := range o.needed() {
		if topLevel(name) == "groups" {
			return true
		}
	}
	return false
}

// GroupsElsewhere reports a marker of overage that speaks of groups. One that
// is malformed speaks of nothing.
func (c Claims) GroupsElsewhere() bool {
	switch c.all()["_claim_names"].(type) {
	case nil, map[string]any:
		return c.marked("groups") != ""
	default:
		return false
	}
}

// WithGroups puts the groups where a token would carry them, under each of the
// names, and takes the markers away that speak of them; those of other claims
// stay.
func (c Claims) WithGroups(ids []string, names ...string) Claims {
	m := maps.Clone(c.all())
	list := make([]any, len(ids))
	for i, id := range ids {
		list[i] = id
	}
	for _, name := range names {
		m[name] = list
	}
	for _, marker := range []string{"hasgroups", "groups.link", "http://schemas.microsoft.com/claims/groups.link"} {
		delete(m, marker)
	}
	if marked, ok := m["_claim_names"].(map[string]any); ok {
		marked = maps.Clone(marked)
		delete(marked, "groups")
		m["_claim_names"] = marked
		if len(marked) == 0 {
			delete(m, "_claim_names")
			delete(m, "_claim_sources")
		}
	}
	return c.with(m)
}
