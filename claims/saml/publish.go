package saml

import (
	"encoding/base64"
	"strconv"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"

	"github.com/groupgate/groupgate/claims"
)

// metadataType is the media type of metadata (Metadata, appendix A).
const metadataType = "application/samlmetadata+xml"

// Metadata is ours (Metadata 2.4.4). It says nothing of how long it is valid:
// the key is ours as long as the configuration says so, and providers that read
// it once should not forget us.
func (s *Source) Metadata() (contentType string, body []byte, err error) {
	root := element("md:EntityDescriptor", "xmlns:md", nsMetadata, "xmlns:ds", nsSignature, "entityID", s.cfg.EntityID)
	sp := add(root, element("md:SPSSODescriptor",
		"AuthnRequestsSigned", strconv.FormatBool(s.cfg.SignRequests),
		"WantAssertionsSigned", "true",
		"protocolSupportEnumeration", nsProtocol))
	// In the order of the schema.
	add(sp, s.keyDescriptor("signing"))
	encryption := add(sp, s.keyDescriptor("encryption"))
	for _, algorithm := range []string{algOAEP, algOAEP11, "http://www.w3.org/2009/xmlenc11#aes256-gcm", "http://www.w3.org/2009/xmlenc11#aes128-gcm"} {
		add(encryption, element("md:EncryptionMethod", "Algorithm", algorithm))
	}
	for _, binding := range []string{saml.HTTPRedirectBinding, saml.HTTPPostBinding} {
		add(sp, element("md:SingleLogoutService", "Binding", binding, "Location", s.sp.SloURL.String()))
	}
	if s.cfg.Subject == claims.SubjectNameID {
		// Shibboleth and SimpleSAMLphp send a transient one otherwise.
		add(sp, element("md:NameIDFormat")).SetText(formatPersistent)
	}
	add(sp, element("md:AssertionConsumerService", "Binding", saml.HTTPPostBinding, "Location", s.sp.AcsURL.String(),
		"index", "0", "isDefault", "true"))
	doc := etree.NewDocument()
	doc.CreateProcInst("xml", `version="1.0" encoding="UTF-8"`)
	doc.SetRoot(root)
	doc.Indent(2)
	body, err = doc.WriteToBytes()
	if err != nil {
		return "", nil, s.errorf("write metadata", nil, "%w", err)
	}
	return metadataType, body, nil
}

func (s *Source) keyDescriptor(use string) *etree.Element {
	el := element("md:KeyDescriptor", "use", use)
	data := add(add(el, element("ds:KeyInfo")), element("ds:X509Data"))
	add(data, element("ds:X509Certificate")).SetText(base64.StdEncoding.EncodeToString(s.sp.Certificate.Raw))
	return el
}

// element makes one with attributes: name, value, name, value.
func element(tag string, attributes ...string) *etree.Element {
	el := etree.NewElement(tag)
	for i := 0; i+1 < len(attributes); i += 2 {
		el.CreateAttr(attributes[i], attributes[i+1])
	}
	return el
}

func add(parent, el *etree.Element) *etree.Element {
	parent.AddChild(el)
	return el
}
