package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// condition is why the store is not healthy.
type condition struct {
	err     error
	noReads bool // the opened file is not the directory any more
}

// Healthy is nil while the poller's last look, at most three intervals ago,
// found the file in place and answering, and writes go through.
func (s *Store) Healthy() error {
	if s.closed.Load() {
		return fmt.Errorf("sqlite: health: %w: the store is closed", groups.ErrUnavailable)
	}
	if c := s.down.Load(); c != nil {
		return fmt.Errorf("sqlite: health: %w", c.err)
	}
	if silent := time.Since(s.started) - time.Duration(s.lastOK.Load()); silent > 3*s.opts.PollInterval {
		return fmt.Errorf("sqlite: health: %w: no answer for %v", groups.ErrUnavailable, silent.Round(time.Millisecond))
	}
	return nil
}

func (s *Store) noteAnswer() { s.lastOK.Store(int64(time.Since(s.started))) }

// lookNow wakes the poller.
func (s *Store) lookNow() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Store) poll(ctx context.Context) {
	defer close(s.polled)
	tick := time.NewTicker(s.opts.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
		c := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		s.turn(c)
		if db := s.db.Load(); db != nil && c == nil {
			db.copyLog(ctx)
		}
	}
}

// turn makes c, or nil, the store's condition.
func (s *Store) turn(c *condition) {
	was := s.down.Swap(c)
	switch {
	case c == nil:
		s.noteAnswer()
		if was != nil {
			s.opts.Log.Info("store is back")
			// What was missed meanwhile is not known.
			s.deliver(groups.Notice{})
		}
	case was == nil || was.err.Error() != c.err.Error():
		s.opts.Log.Error("store is unavailable", zap.Error(c.err))
	}
}

// look does one round: the file, the database, notices, writes.
func (s *Store) look(ctx context.Context) *condition {
	ctx, cancel := context.WithTimeout(ctx, s.opts.PollInterval+time.Second)
	defer cancel()
	db := s.db.Load()
	if db == nil {
		return s.reopen(ctx)
	}
	switch err := db.check(); {
	case errors.Is(err, errReplaced):
		s.turn(&condition{err, true}) // no new work for the old file
		return s.replace(ctx, db)
	case errors.Is(err, errReadOnly):
		return &condition{err, false}
	case err != nil:
		return &condition{err, true}
	}
	if err := s.readNotices(ctx, db); err != nil {
		return &condition{meaning(err), false}
	}
	if since := s.beginning.Load(); since != 0 {
		if waited := time.Since(s.started) - time.Duration(since); waited > s.opts.PollInterval*3/2 {
			return &condition{fmt.Errorf("%w: another process holds the write lock", groups.ErrUnavailable), false}
		}
	}
	if err := s.trouble.Load(); err != nil {
		return s.probe(ctx, db)
	}
	return nil
}

// replace lets go of the file that was opened and takes the one that is there
// now.
func (s *Store) replace(ctx context.Context, db *database) *condition {
	select {
	case db.lock <- struct{}{}:
	case <-ctx.Done():
		return &condition{errReplaced, true} // an Update still runs; next time
	}
	s.db.Store(nil)
	<-db.lock // those who wait for their turn see that it is over
	db.retire(ctx)
	return s.reopen(ctx)
}

func (s *Store) reopen(ctx context.Context) *condition {
	db, err := openDatabase(ctx, s.path)
	if errors.Is(err, os.ErrNotExist) {
		return &condition{errGone, true}
	}
	if err == nil {
		s.lastSeq, err = db.lastNotice(ctx)
		if err != nil {
			err = errors.Join(err, db.close())
		}
	}
	if err != nil {
		return &condition{fmt.Errorf("%w: %v", groups.ErrUnavailable, err), true}
	}
	s.trouble.Store(nil)
	s.db.Store(db)
	s.opts.Log.Info("store was opened anew")
	return nil
}

// readNotices asks whether anybody committed since last time, which costs next
// to nothing, and delivers what other processes had to say.
func (s *Store) readNotices(ctx context.Context, db *database) (err error) {
	if db.watch == nil {
		if db.watch, err = db.readPool.Conn(ctx); err != nil {
			return err
		}
		db.dataVersion = -1
	}
	var version int64
	if err = db.watch.QueryRowContext(ctx, "pragma data_version").Scan(&version); err == nil && version != db.dataVersion {
		err = s.fetchNotices(ctx, db)
		db.behind.Store(true)
	}
	if err != nil {
		// data_version compares on one connection only, so a new one starts over.
		_ = db.watch.Close()
		db.watch = nil
		return err
	}
	db.dataVersion = version
	return nil
}

func (s *Store) fetchNotices(ctx context.Context, db *database) error {
	type row struct {
		seq    int64
		origin string
		notice groups.Notice
	}
	all, err := list(ctx, db.reads, "notices", func(r *rows, n *row) error {
		return r.Scan(&n.seq, &n.origin, &n.notice.User, &n.notice.Login)
	}, `select seq, origin, user_id, login from notices where seq > $1 order by seq`, s.lastSeq)
	if err != nil {
		return err
	}
	for _, n := range all {
		s.lastSeq = n.seq
		if n.origin != s.origin { // Update has told of ours
			s.deliver(n.notice)
		}
	}
	return nil
}

// probe finds out whether writing works again.
func (s *Store) probe(ctx context.Context, db *database) *condition {
	select {
	case db.lock <- struct{}{}:
		defer func() { <-db.lock }()
	default:
		if err := s.trouble.Load(); err != nil { // a running Update will tell
			return &condition{meaning(*err), false}
		}
		return nil
	}
	_, err := db.writes.exec(ctx, "begin immediate")
	if err == nil {
		_, err = db.writes.exec(ctx, `insert into meta (key, value) values ('store/probe', $1)
			on conflict (key) do update set value = excluded.value`, fmt.Sprint(micros(s.opts.Now())))
		end := "commit"
		if err != nil {
			end = "rollback"
		}
		_, endErr := db.writes.exec(ctx, end)
		err = errors.Join(err, endErr)
	}
	if err != nil {
		return &condition{meaning(err), false}
	}
	s.trouble.Store(nil)
	return nil
}
