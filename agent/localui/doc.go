// Package localui shows the agent to the person who stands in front of it: one page, its JSON, and metrics.
//
// It owns nothing but words and looks: everything it shows is one status.Snapshot. It promises to answer reads only, under
// the names it was told (so that a foreign page cannot read it by rebinding a name), to need no hub, no internet and no
// JavaScript, and never to show an old green: the page says so itself when the agent no longer answers. It never changes
// anything.
//
//	/               the page
//	/api/v1/status  status.Snapshot as JSON
//	/metrics        the same for Prometheus
//	/api/v1/trace   what the rules make of each value, live; for those with the admin token, like /api/v1/admin/recording, which
//	                starts and stops a recording of what the rules are given
//	/healthz        200 while the agent can take a snapshot of itself
package localui
