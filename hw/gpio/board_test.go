//go:build board

package gpio

import (
	"slices"
	"testing"
)

func TestBoardPanelIsListed(t *testing.T) {
	chips, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(chips, func(c Chip) bool {
		return slices.ContainsFunc(c.Lines, func(l Line) bool { return l.Name == "GO_LIVE" })
	})
	if i < 0 {
		t.Fatalf("no line GO_LIVE in %+v", chips)
	}
	if l := chips[i].Lines; len(l) != 8 || l[0].Name != "GO_LIVE" || l[0].Offset != 0 || l[0].Consumer != "" {
		t.Errorf("the panel is %+v", l)
	}
}
