package saml

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// SM-15: however many answers come at once, only so many are opened; who waits
// longer than a login may take is told to come again.
func TestSM15AnswersTakeTurns(t *testing.T) {
	t.Parallel()
	src := newRig(t).src
	for range cap(src.turns) {
		src.turns <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := src.accept(ctx, []byte("<a/>"), "id"); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("while all turns are taken: %v", err)
	}
	<-src.turns
	if _, _, err := src.accept(t.Context(), []byte("<a/>"), "id"); !errors.Is(err, claims.ErrProtocol) {
		t.Errorf("with a turn free: %v", err)
	}
}
