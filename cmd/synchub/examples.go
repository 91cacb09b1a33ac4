package main

// Help of each command is shown below its summary.

func (serveCmd) Help() string { return "Example: synchub serve -c /etc/linekeeper/hub.yaml" }

func (checkCmd) Help() string {
	return "Example: synchub check -c hub.yaml\n\nExit code: 0 valid, 78 not valid. The files that the configuration names are read."
}

func (sampleCmd) Help() string { return "Example: synchub sample > hub.yaml" }

func (certCmd) Help() string {
	return "Example: synchub cert init --host hub.example.com, then synchub cert agent --plant ulm --agent line1"
}

func (certInitCmd) Help() string {
	return "Example: synchub cert init --dir pki --host hub.example.com --host 10.0.0.5\n\nAn authority that exists is never overwritten."
}

func (certAgentCmd) Help() string {
	return "Example: synchub cert agent --dir pki --plant ulm --agent line1 --out line1"
}

func (tokenCmd) Help() string { return "Example: synchub token --name planner --write" }

func (agentsCmd) Help() string { return "Example: synchub agents --json" }

func (factCmd) Help() string {
	return "Example: synchub fact U7DOIRTV5EXVVADG\n\nThe key stands on the ERP's document; the UUID form will do as well."
}

func (replayCmd) Help() string {
	return "Example: synchub replay --code no_stock --dry-run, then synchub replay --code no_stock --per-minute 60\n\n" +
		"A replay never doubles an effect: what may have happened is looked up first."
}

func (inboxCmd) Help() string { return "Example: synchub inbox --owner warehouse --late" }

func (notifyCmd) Help() string {
	return "Example: synchub notify test -c hub.yaml --receiver shift-lead"
}

func (notifyTestCmd) Help() string {
	return "Example: synchub notify test -c hub.yaml\n\nExit code: 0 each receiver took it, 1 one did not, 78 the configuration is not valid. The hub need not run."
}

func (versionCmd) Help() string { return "Example: synchub version" }
