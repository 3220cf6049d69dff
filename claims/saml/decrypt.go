package saml

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP's default digest, where it needs no collision resistance
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"

	"github.com/beevik/etree"
)

// Algorithms of XML Encryption 1.1 that are accepted.
const (
	algOAEP   = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"
	algOAEP11 = "http://www.w3.org/2009/xmlenc11#rsa-oaep"
)

// gcmKeys and cbcKeys are the lengths of keys by algorithm.
var (
	gcmKeys = map[string]int{
		"http://www.w3.org/2009/xmlenc11#aes128-gcm": 16,
		"http://www.w3.org/2009/xmlenc11#aes192-gcm": 24,
		"http://www.w3.org/2009/xmlenc11#aes256-gcm": 32,
	}
	cbcKeys = map[string]int{
		"http://www.w3.org/2001/04/xmlenc#aes128-cbc": 16,
		"http://www.w3.org/2001/04/xmlenc#aes192-cbc": 24,
		"http://www.w3.org/2001/04/xmlenc#aes256-cbc": 32,
	}
	hashes = map[string]crypto.Hash{
		"":                                       crypto.SHA1, // what is meant when nothing is said (XML Encryption 5.5.2)
		"http://www.w3.org/2000/09/xmldsig#sha1": crypto.SHA1,
		"http://www.w3.org/2001/04/xmlenc#sha256":       crypto.SHA256,
		"http://www.w3.org/2001/04/xmldsig-more#sha384": crypto.SHA384,
		"http://www.w3.org/2001/04/xmlenc#sha512":       crypto.SHA512,
	}
	maskHashes = map[string]crypto.Hash{
		"": crypto.SHA1,
		"http://www.w3.org/2009/xmlenc11#mgf1sha1":   crypto.SHA1,
		"http://www.w3.org/2009/xmlenc11#mgf1sha256": crypto.SHA256,
		"http://www.w3.org/2009/xmlenc11#mgf1sha384": crypto.SHA384,
		"http://www.w3.org/2009/xmlenc11#mgf1sha512": crypto.SHA512,
	}
)

// errDecrypt is the one answer to everything that goes wrong with an encrypted
// assertion: anybody can make one, and what tells faults apart is an oracle.
var errDecrypt = errors.New("the encrypted assertion cannot be read")

// encrypted is an EncryptedAssertion (Core 2.3.4), taken apart.
type encrypted struct {
	data, key       *etree.Element // EncryptedData, EncryptedKey
	cipher          string         // of the data
	transport       string         // of the key
	transportMethod *etree.Element
}

// readEncrypted looks for the key inside EncryptedData or beside it, where it
// may stand once.
func readEncrypted(el *etree.Element) (*encrypted, error) {
	data, err := needChild(el, nsEncrypt, "EncryptedData")
	if err != nil {
		return nil, errDecrypt
	}
	method, err := needChild(data, nsEncrypt, "EncryptionMethod")
	if err != nil {
		return nil, errDecrypt
	}
	e := &encrypted{data: data, cipher: attr(method, "Algorithm")}
	keys := children(el, nsEncrypt, "EncryptedKey")
	info, err := child(data, nsSignature, "KeyInfo")
	if err != nil {
		return nil, errDecrypt
	}
	if info != nil {
		keys = append(keys, children(info, nsEncrypt, "EncryptedKey")...)
	}
	if len(keys) != 1 {
		return nil, errDecrypt
	}
	e.key = keys[0]
	if e.transportMethod, err = needChild(e.key, nsEncrypt, "EncryptionMethod"); err != nil {
		return nil, errDecrypt
	}
	e.transport = attr(e.transportMethod, "Algorithm")
	return e, nil
}

// checkEncrypted holds an EncryptedAssertion to the algorithms that are
// accepted. AES-CBC can be changed unnoticed, so it is for assertions inside a
// signed response alone.
func checkEncrypted(el *etree.Element, insideSigned bool) (*encrypted, error) {
	e, err := readEncrypted(el)
	switch {
	case err != nil:
	case cbcKeys[e.cipher] != 0 && !insideSigned:
		err = errors.New("an assertion encrypted with AES-CBC outside a signed response: have the provider sign the response, or use AES-GCM")
	case cbcKeys[e.cipher] == 0 && gcmKeys[e.cipher] == 0:
		err = errors.New("an assertion encrypted with an algorithm that is not accepted (AES-GCM is)")
	case e.transport != algOAEP && e.transport != algOAEP11:
		err = errors.New("an assertion whose key is encrypted with an algorithm that is not accepted (RSA-OAEP is)")
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// decrypt answers the element inside an EncryptedAssertion. The library's own
// decryption chooses algorithms by elements of any namespace, knows no
// AES-256-GCM, mixes up OAEP's two digests and panics on short texts.
func (t *trust) decrypt(sealed *etree.Element, insideSigned bool) (*etree.Element, error) {
	e, err := checkEncrypted(sealed, insideSigned)
	if err != nil {
		return nil, err
	}
	if t.key == nil {
		return nil, errDecrypt
	}
	plain, err := e.open(t.key)
	if err != nil {
		return nil, errDecrypt
	}
	root, err := parseMessage(plain)
	if err != nil {
		return nil, errDecrypt
	}
	// What was encrypted stood here, among these namespaces (XML Encryption
	// 4.3.3).
	inherit(root, sealed)
	if !is(root, nsAssertion, "Assertion") || checkTree(root) != nil {
		return nil, errDecrypt
	}
	return root, nil
}

func (e *encrypted) open(private *rsa.PrivateKey) ([]byte, error) {
	open, size := openGCM, gcmKeys[e.cipher]
	if size == 0 {
		open, size = openCBC, cbcKeys[e.cipher]
	}
	text, err := cipherText(e.data)
	if err != nil || size == 0 {
		return nil, errDecrypt
	}
	key, err := e.openKey(private)
	if err != nil || len(key) != size {
		// A key that nobody has takes as long as one that somebody has.
		key = make([]byte, size)
		_, _ = rand.Read(key) // never fails (crypto/rand)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errDecrypt
	}
	return open(block, text)
}

// openKey takes RSA-OAEP off the key (XML Encryption 1.1 section 5.5.2).
func (e *encrypted) openKey(private *rsa.PrivateKey) ([]byte, error) {
	opts := &rsa.OAEPOptions{MGFHash: crypto.SHA1}
	digest, mask := "", ""
	for _, c := range e.transportMethod.ChildElements() {
		switch {
		case is(c, nsSignature, "DigestMethod"):
			digest = attr(c, "Algorithm")
		case is(c, nsEncrypt11, "MGF"):
			mask = attr(c, "Algorithm")
		case is(c, nsEncrypt, "OAEPparams"):
			return nil, errDecrypt
		}
	}
	var known bool
	if opts.Hash, known = hashes[digest]; !known {
		return nil, errDecrypt
	}
	if e.transport == algOAEP11 {
		if opts.MGFHash, known = maskHashes[mask]; !known {
			return nil, errDecrypt
		}
	}
	text, err := cipherText(e.key)
	if err != nil {
		return nil, errDecrypt
	}
	return private.Decrypt(nil, text, opts)
}

func openGCM(block cipher.Block, text []byte) ([]byte, error) {
	gcm, err := cipher.NewGCM(block)
	if err != nil || len(text) < gcm.NonceSize() {
		return nil, errDecrypt
	}
	plain, err := gcm.Open(nil, text[:gcm.NonceSize()], text[gcm.NonceSize():], nil)
	if err != nil {
		return nil, errDecrypt
	}
	return plain, nil
}

// openCBC is only reached inside a signed response (checkEncrypted), where
// nobody but the provider chose the text.
func openCBC(block cipher.Block, text []byte) ([]byte, error) {
	size := block.BlockSize()
	if len(text) < 2*size || len(text)%size != 0 {
		return nil, errDecrypt
	}
	plain := make([]byte, len(text)-size)
	cipher.NewCBCDecrypter(block, text[:size]).CryptBlocks(plain, text[size:])
	padding := int(plain[len(plain)-1]) // XML Encryption 5.2: only the last byte says
	if padding < 1 || padding > size {
		return nil, errDecrypt
	}
	return plain[:len(plain)-padding], nil
}

func cipherText(el *etree.Element) ([]byte, error) {
	data, err := needChild(el, nsEncrypt, "CipherData")
	if err != nil {
		return nil, err
	}
	value, err := needChild(data, nsEncrypt, "CipherValue")
	if err != nil {
		return nil, err
	}
	return base64Text(value)
}
