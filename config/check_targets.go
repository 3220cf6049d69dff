package config

import (
	"time"

	"github.com/groupgate/groupgate/groups/webhook"
)

// maxWait is how long a login may be held up for a target.
const maxWait = 10 * time.Second

// targets checks who is told of memberships. What is sent there is signed or
// carries a token, so an address is https or on loopback.
func (c *checker) targets() {
	if c.written("targets") && len(c.cfg.Targets) > 0 && c.cfg.Store.None == nil && !c.cfg.Sync.Enabled {
		c.fault("targets", "means nothing while sync.enabled is false: no memberships are kept that a target could hold")
	}
	first := map[string]int{}
	for i := range c.cfg.Targets {
		t := &c.cfg.Targets[i]
		at := item("targets", i)
		c.sourceName(at+".name", t.Name)
		if other, twice := first[t.Name]; twice && t.Name != "" {
			c.fault(at+".name", "the name belongs to the target in line %d already", c.at(item("targets", other)).line)
		} else {
			first[t.Name] = i
		}
		c.oneKind(at, "target", "scim", "webhook", "kaltura")
		if t.SCIM != nil {
			c.targetURL(at+".scim.url", t.SCIM.URL)
			c.missing(at+".scim.token", t.SCIM.Token, "")
		}
		if t.Webhook != nil {
			c.targetURL(at+".webhook.url", t.Webhook.URL)
			if secret := at + ".webhook.secret"; !c.missing(secret, t.Webhook.Secret, ": messages are signed with it") {
				_, err := webhook.Key(t.Webhook.Secret)
				c.problem(secret, err)
			}
		}
		if t.Kaltura != nil {
			c.targetURL(at+".kaltura.url", t.Kaltura.URL)
			c.missing(at+".kaltura.admin_secret", t.Kaltura.AdminSecret, "")
			if id := at + ".kaltura.partner_id"; !c.written(id) {
				c.fault(id, "is missing: the number of the account")
			} else if t.Kaltura.PartnerID <= 0 {
				c.fault(id, "is not the number of an account")
			}
		}
		if t.Wait > maxWait {
			c.fault(at+".wait", "is longer than %s: a login would look broken", short(maxWait))
		}
	}
}

func (c *checker) targetURL(path, raw string) {
	if c.missing(path, raw, "") {
		return
	}
	u, err := address(raw)
	if err == nil {
		err = secure(u)
	}
	c.problem(path, err)
}
