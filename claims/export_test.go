package claims

import "context"

// CheckHash is what every check of a password comes down to.
func CheckHash(ctx context.Context, hash, password string) (bool, error) {
	return checkHash(ctx, hash, password)
}

// HoldHashing takes every place there is for hashing, until release.
func HoldHashing() (places int, release func()) {
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	return cap(hashing), func() {
		for range cap(hashing) {
			<-hashing
		}
	}
}
