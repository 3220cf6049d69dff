{{- define "groupgate.name" -}}
{{- if contains "groupgate" .Release.Name -}}{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-groupgate" .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "groupgate.selector" -}}
app.kubernetes.io/name: groupgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "groupgate.labels" -}}
{{ include "groupgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "groupgate.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "groupgate.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end -}}

{{/* What cannot work is refused before anything is made. */}}
{{- define "groupgate.check" -}}
{{- $v := .Values -}}
{{- if and (eq $v.mode "standalone") (not $v.upstream) -}}
{{- fail "upstream is needed in mode standalone: the application to protect, such as http://app.default.svc:8080" -}}
{{- end -}}
{{- if and (eq $v.mode "forward-auth") $v.upstream -}}
{{- fail "upstream has no meaning in mode forward-auth: the asking proxy forwards" -}}
{{- end -}}
{{- if and (eq $v.store.type "sqlite") (include "groupgate.several" .) -}}
{{- fail "store.type sqlite is for one replica: several need store.type postgres, or none" -}}
{{- end -}}
{{- if and $v.store.sqlite.ephemeral $v.store.sqlite.existingClaim -}}
{{- fail "store.sqlite.ephemeral and store.sqlite.existingClaim exclude each other" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is needed: the Gateway that the route belongs to" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- range list "listen" "upstream" "store" -}}
{{- if hasKey $v.config . -}}{{ fail (printf "config.%s is written by the chart: leave it out" .) }}{{- end -}}
{{- end -}}
{{- range list "listen" "token" -}}
{{- if hasKey ($v.config.admin | default dict) . -}}{{ fail (printf "config.admin.%s is written by the chart: leave it out" .) }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* groupgate.yaml */}}
{{- define "groupgate.config" -}}
{{- include "groupgate.check" . -}}
{{- $c := deepCopy .Values.config -}}
{{- $dir := "/run/secrets/groupgate" -}}
{{- $_ := set $c "listen" ":4180" -}}
{{- /* The file needs an upstream. Nobody is at this one: what is not below PREFIX/ never belongs here. */ -}}
{{- $_ = set $c "upstream" (eq .Values.mode "standalone" | ternary .Values.upstream "http://127.0.0.1:9") -}}
{{- $_ = set $c "admin" (merge (dict "listen" ":4181" "token" (printf "${file:%s/admin-token}" $dir)) ($c.admin | default dict)) -}}
{{- $session := $c.session | default dict -}}
{{- if not $session.keys -}}{{- $_ = set $session "keys" (list (printf "${file:%s/session-key}" $dir)) -}}{{- end -}}
{{- $_ = set $c "session" $session -}}
{{- if eq .Values.store.type "sqlite" -}}{{- $_ = set $c "store" (dict "sqlite" "/data/groupgate.db") -}}
{{- else if eq .Values.store.type "postgres" -}}{{- $_ = set $c "store" (dict "postgres" (printf "${file:%s/database-url}" $dir)) -}}
{{- else -}}{{- $_ = set $c "store" (dict "none" dict) -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{/* The keys of the Secret that the configuration names. */}}
{{- define "groupgate.secretKeys" -}}
{{- $keys := list -}}
{{- range regexFindAll "\\$\\{file:/run/secrets/groupgate/[^}]+\\}" (include "groupgate.config" .) -1 -}}
{{- $keys = append $keys (. | trimPrefix "${file:/run/secrets/groupgate/" | trimSuffix "}") -}}
{{- end -}}
{{- $keys = without ($keys | uniq | sortAlpha) (eq .Values.store.type "postgres" | ternary "database-url" "") -}}
{{- toYaml $keys -}}
{{- end -}}

{{/* Hosts that people use: of public_url and of routes. */}}
{{- define "groupgate.hosts" -}}
{{- $hosts := list (get (urlParse .Values.config.public_url) "host" | splitList ":" | first) -}}
{{- range .Values.config.routes -}}{{- with .host -}}{{- $hosts = append $hosts . -}}{{- end -}}{{- end -}}
{{- toYaml ($hosts | uniq) -}}
{{- end -}}

{{- define "groupgate.path" -}}
{{- if eq .Values.mode "standalone" -}}/{{- else -}}{{ .Values.config.prefix | default "/_auth" }}{{- end -}}
{{- end -}}
