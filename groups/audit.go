package groups

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

// Note appends one event that belongs to no other write. A store that cannot
// take it does not stop the caller: the log line is written either way.
func (d *Directory) Note(ctx context.Context, e Event) {
	if e.At.IsZero() {
		e.At = d.now()
	}
	// The request may be over already; the trail must not depend on it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := d.store.Update(ctx, func(tx Tx) error { return tx.AddEvents(ctx, e) }); err != nil {
		d.log.Error("audit event not stored", zap.String("kind", e.Kind), zap.Error(err))
	}
	d.written([]Event{e})
}

// written repeats events in the log, one line each, once they are stored.
func (d *Directory) written(events []Event) {
	for _, e := range events {
		fields := []zap.Field{zap.String("kind", e.Kind)}
		add := func(key, value string) {
			if value != "" {
				fields = append(fields, zap.String(key, value))
			}
		}
		if e.User != 0 {
			add("user_id", e.User.String())
		}
		add("user", e.Name)
		add("source", e.Source)
		add("group", e.Group)
		add("actor", e.Actor)
		add("request_id", e.Request)
		add("reason", e.Reason)
		if c := e.Change; c != nil {
			fields = append(fields, zap.Strings("added", c.Added), zap.Strings("removed", c.Removed),
				zap.Strings("held", c.Held), zap.Int("skipped", len(c.Skipped)))
		}
		for name, res := range e.States {
			fields = append(fields, zap.String("claim_"+res.State.String(), name))
		}
		d.audit.Info("audit", fields...)
	}
}

func decodeJSON(raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("directory: stored value: %w", err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// sameClaims compares what two statements say.
func sameClaims(a, b claims.Claims) bool {
	if a.Incomplete() != b.Incomplete() {
		return false
	}
	x, errX := a.MarshalJSON()
	y, errY := b.MarshalJSON()
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
