package claimstest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"

	"github.com/beevik/etree"
)

const samlEncryptNS = "http://www.w3.org/2001/04/xmlenc#"

var samlCiphers = map[string]struct {
	algorithm string
	size      int
}{
	"aes128-gcm": {"http://www.w3.org/2009/xmlenc11#aes128-gcm", 16},
	"aes192-gcm": {"http://www.w3.org/2009/xmlenc11#aes192-gcm", 24},
	"aes256-gcm": {"http://www.w3.org/2009/xmlenc11#aes256-gcm", 32},
	"aes128-cbc": {samlEncryptNS + "aes128-cbc", 16},
	"aes192-cbc": {samlEncryptNS + "aes192-cbc", 24},
	"aes256-cbc": {samlEncryptNS + "aes256-cbc", 32},
}

// encrypt makes an EncryptedAssertion for a service.
func (idp *SAMLIdP) encrypt(a *etree.Element, service string, o SAMLOptions, k SAMLKnobs) *etree.Element {
	plain := SAMLBytes(a)
	if k.MutatePlain != nil {
		plain = k.MutatePlain(plain)
	}
	idp.mu.Lock()
	s := idp.services[service]
	idp.mu.Unlock()
	if s == nil || s.encryption == nil {
		panic("claimstest: assertions are encrypted for services that are known: Trust")
	}
	el := SAMLEncrypt(plain, s.encryption, o.Encrypt, o.KeyTransport, o.KeyBeside)
	if k.MutateCipher != nil {
		k.MutateCipher(el)
	}
	return el
}

// SAMLEncrypt makes an EncryptedAssertion (Core 2.3.4) of any bytes: the public
// key is in the service's metadata, so anybody can. Names of algorithms are
// those of [SAMLOptions].
func SAMLEncrypt(plain []byte, to *rsa.PublicKey, algorithm, transport string, beside bool) *etree.Element {
	c, known := samlCiphers[algorithm]
	if !known {
		panic("claimstest: unknown cipher " + algorithm)
	}
	key := make([]byte, c.size)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	encryptedKey := `<xenc:EncryptedKey xmlns:xenc="` + samlEncryptNS + `">` + wrapKey(key, to, transport) + `</xenc:EncryptedKey>`
	inside, outside := `<ds:KeyInfo xmlns:ds="`+samlSignatureNS+`">`+encryptedKey+`</ds:KeyInfo>`, ""
	if beside {
		inside, outside = "", encryptedKey
	}
	return SAMLElement(`<saml:EncryptedAssertion xmlns:saml="` + samlAssertionNS + `"><xenc:EncryptedData xmlns:xenc="` + samlEncryptNS +
		`" Type="http://www.w3.org/2001/04/xmlenc#Element"><xenc:EncryptionMethod Algorithm="` + c.algorithm + `"/>` + inside +
		cipherData(seal(key, plain, strings.HasSuffix(algorithm, "-cbc"))) + `</xenc:EncryptedData>` + outside + `</saml:EncryptedAssertion>`)
}

func cipherData(raw []byte) string {
	return `<xenc:CipherData><xenc:CipherValue>` + base64.StdEncoding.EncodeToString(raw) + `</xenc:CipherValue></xenc:CipherData>`
}

func seal(key, plain []byte, cbc bool) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	if cbc {
		padding := make([]byte, aes.BlockSize-len(plain)%aes.BlockSize)
		padding[len(padding)-1] = byte(len(padding))
		out := make([]byte, aes.BlockSize+len(plain)+len(padding))
		_, _ = rand.Read(out[:aes.BlockSize])
		cipher.NewCBCEncrypter(block, out[:aes.BlockSize]).CryptBlocks(out[aes.BlockSize:], append(append([]byte{}, plain...), padding...))
		return out
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	return gcm.Seal(nonce, nonce, plain, nil)
}

// wrapKey encrypts a key and says how (XML Encryption 1.1 section 5.5).
func wrapKey(key []byte, to *rsa.PublicKey, transport string) string {
	const sha256 = "http://www.w3.org/2001/04/xmlenc#sha256"
	digest := func(algorithm string) string {
		return `<ds:DigestMethod xmlns:ds="` + samlSignatureNS + `" Algorithm="` + algorithm + `"/>`
	}
	opts := rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1}
	method := `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p">` + digest("http://www.w3.org/2000/09/xmldsig#sha1")
	switch transport {
	case "", "oaep":
	case "oaep-sha256":
		opts.Hash = crypto.SHA256
		method = `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p">` + digest(sha256)
	case "oaep11":
		opts = rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA256}
		method = `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2009/xmlenc11#rsa-oaep">` + digest(sha256) +
			`<xenc11:MGF xmlns:xenc11="http://www.w3.org/2009/xmlenc11#" Algorithm="http://www.w3.org/2009/xmlenc11#mgf1sha256"/>`
	case "rsa-1_5":
		raw, err := rsa.EncryptPKCS1v15(rand.Reader, to, key) //nolint:staticcheck // that a provider uses it is the lie
		if err != nil {
			panic(err)
		}
		return `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#rsa-1_5"/>` + cipherData(raw)
	default:
		panic("claimstest: unknown key transport " + transport)
	}
	raw, err := rsa.EncryptOAEPWithOptions(rand.Reader, to, key, &opts)
	if err != nil {
		panic(err)
	}
	return method + `</xenc:EncryptionMethod>` + cipherData(raw)
}
