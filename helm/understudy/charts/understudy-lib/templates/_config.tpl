{{/*
The sidecar's understudy.yaml: `config` over what follows from the other values. `listen` may add a
certificate; the ports are those of `ports`.
*/}}
{{- define "understudy-lib.config" -}}
{{- $own := default .Values .Values.understudy -}}
{{- $base := dict
    "version" 1
    "listen" (dict "address" (printf "%s:%d" $own.ports.address (int $own.ports.traffic)))
    "control" (dict "listen" (printf "%s:%d" $own.ports.address (int $own.ports.control)) "token_env" "UNDERSTUDY_TOKEN")
    "state_dir" "/var/lib/understudy"
    "champion" (dict "url" (default (printf "http://127.0.0.1:%d" (int $own.ports.model)) (default dict $own.model).external))
    "limits" (dict "drain" (printf "%ds" (int $own.sidecar.drain.seconds)))
-}}
{{- if (default dict $own.evaluator).enabled -}}
{{- $_ := set $base "evaluation" (dict "mode" "kafka") -}}
{{- $_ := set $base "kafka" (dict "evaluators" (printf "http://%s-evaluator:%d" (include "understudy-lib.fullname" .) (int $own.service.controlPort))) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $base (deepCopy $own.config)) -}}
{{- end }}

{{/* Everything that the folder of the configuration holds. */}}
{{- define "understudy-lib.configData" -}}
{{- $own := default .Values .Values.understudy -}}
understudy.yaml: |
  {{- include "understudy-lib.config" . | nindent 2 }}
{{- range $name, $text := $own.sidecar.files }}
{{ $name }}: {{ $text | toJson }}
{{- end }}
{{- end }}

{{- define "understudy-lib.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "understudy-lib.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "understudy-lib.labels" . | nindent 4 }}
data:
  {{- include "understudy-lib.configData" . | nindent 2 }}
{{- end }}

{{/* The token that is there stays: `lookup` asks the cluster for it. */}}
{{- define "understudy-lib.secret" -}}
{{- $own := default .Values .Values.understudy -}}
{{- if not $own.token.existingSecret -}}
{{- $name := include "understudy-lib.secretName" . -}}
{{- $there := (lookup "v1" "Secret" .Release.Namespace $name).data | default dict -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "understudy-lib.labels" . | nindent 4 }}
type: Opaque
data:
  {{ $own.token.key }}: {{ get $there $own.token.key | default (randAlphaNum 48 | b64enc) | quote }}
{{- end -}}
{{- end }}

{{- define "understudy-lib.podMonitor" -}}
{{- $own := default .Values .Values.understudy -}}
{{- if $own.podMonitor.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "understudy-lib.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "understudy-lib.labels" . | nindent 4 }}
    {{- with $own.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "understudy-lib.podLabels" . | nindent 6 }}
  podMetricsEndpoints:
    - port: understudy-ctl
      path: /metrics
      interval: {{ $own.podMonitor.interval }}
      scrapeTimeout: {{ $own.podMonitor.scrapeTimeout }}
      relabelings:
        # What alerts and dashboards call it.
        - {targetLabel: job, replacement: understudy}
        {{- with $own.podMonitor.relabelings }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $own.podMonitor.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- with $own.podMonitor.scrapeProtocols }}
  scrapeProtocols:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end }}

{{/* All that the sidecar needs beside its pod; one file of a model's own chart holds it. */}}
{{- define "understudy-lib.resources" -}}
{{ include "understudy-lib.configMap" . }}
{{- with include "understudy-lib.secret" . }}
---
{{ . }}
{{- end }}
{{- with include "understudy-lib.podMonitor" . }}
---
{{ . }}
{{- end }}
{{- end }}
