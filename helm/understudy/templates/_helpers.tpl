{{/* Names, labels, image and sidecar come from the library, charts/understudy-lib. */}}

{{- define "understudy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "understudy-lib.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/*
The Service that has the control API: the evaluator's, which answers for all pods; else that of the
clients, unless it leads out of the cluster, where the control API has no business.
*/}}
{{- define "understudy.controlService" -}}
{{- include "understudy-lib.fullname" . -}}
{{- if .Values.evaluator.enabled -}}
-evaluator
{{- else if ne .Values.service.type "ClusterIP" -}}
-control
{{- end -}}
{{- end }}

{{/* Labels of a component: (dict "root" $ "component" "evaluator"). */}}
{{- define "understudy.labels" -}}
{{ include "understudy-lib.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "understudy.selectorLabels" -}}
{{ include "understudy-lib.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Metadata: (dict "root" $ "component" "evaluator" "suffix" "-evaluator"). */}}
{{- define "understudy.metadata" -}}
name: {{ include "understudy-lib.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "understudy.labels" . | nindent 2 }}
{{- end }}

{{- define "understudy.topologySpread" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- with $root.Values.topologySpread }}
{{- $spread := . }}
{{- range .keys }}
- topologyKey: {{ . }}
  maxSkew: {{ $spread.maxSkew }}
  whenUnsatisfiable: {{ $spread.whenUnsatisfiable }}
  labelSelector:
    matchLabels:
      {{- include "understudy.selectorLabels" (dict "root" $root "component" $component) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "understudy.modelImage" -}}
{{- $image := .Values.model.image -}}
{{- if not $image.repository -}}
{{- fail "model.image.repository is needed: the image of your model server, which has to listen on ports.model. Without a model server of this chart's: model.enabled=false" -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository $image.tag -}}
{{- end -}}
{{- end }}

{{/* The container of the model server, without its lifecycle, which differs. */}}
{{- define "understudy.modelContainer" -}}
{{- $model := .Values.model -}}
name: model
image: {{ include "understudy.modelImage" . }}
imagePullPolicy: {{ $model.image.pullPolicy }}
{{- with $model.command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $model.args }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $model.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $model.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: model, containerPort: {{ int .Values.ports.model }}, protocol: TCP}
startupProbe:
  {{- if $model.startupProbe }}
  {{- toYaml $model.startupProbe | nindent 2 }}
  {{- else }}
  tcpSocket: {port: {{ int .Values.ports.model }}}
  periodSeconds: 2
  failureThreshold: 150
  {{- end }}
readinessProbe:
  {{- if $model.readinessProbe }}
  {{- toYaml $model.readinessProbe | nindent 2 }}
  {{- else }}
  tcpSocket: {port: {{ int .Values.ports.model }}}
  periodSeconds: 5
  {{- end }}
{{- with $model.livenessProbe }}
livenessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $model.resources | nindent 2 }}
securityContext:
  {{- toYaml (default .Values.containerSecurityContext $model.securityContext) | nindent 2 }}
volumeMounts:
  - {name: model-tmp, mountPath: /tmp}
  {{- with $model.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "understudy.modelVolumes" -}}
- name: model-tmp
  emptyDir: {sizeLimit: {{ .Values.model.tmpSizeLimit }}}
{{- with .Values.model.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "understudy.loadImage" -}}
{{- $image := .Values.loadImage -}}
{{- $repository := default (print .Values.image.repository "-load") $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (coalesce $image.tag .Values.image.tag (include "understudy-lib.version" .)) -}}
{{- end -}}
{{- end }}

{{/* A container of ours that is no sidecar: (dict "root" $ "name" … "image" … "command" … "args" … "resources" …). */}}
{{- define "understudy.tool" -}}
name: {{ .name }}
image: {{ .image }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: {{ toJson .command }}
args: {{ toJson .args }}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{/* Where pods may connect: items of `egress`. */}}
{{- define "understudy.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- to:
    - podSelector:
        matchLabels:
          {{- include "understudy-lib.selectorLabels" . | nindent 10 }}
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where and how pods run: what a component's values say of nodes, priority and runtime. */}}
{{- define "understudy.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether objectives of a plan ask something of requests: "true", or nothing. */}}
{{- define "understudy.asks" -}}
{{- range $name, $limit := default dict . -}}
{{- if and (not (has $name (list "alpha" "rule" "joules"))) (not (kindIs "invalid" $limit)) -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* A plan as YAML: (dict "name" "gate.plan" "plan" …). Refused if it could only pass by accident, as by the gate itself. */}}
{{- define "understudy.plan" -}}
{{- $name := .name -}}
{{- $plan := .plan -}}
{{- $judged := false -}}
{{- range $stage := default list $plan.stages -}}
{{- if ne (toString $stage.judged) "false" -}}
{{- $judged = true -}}
{{- $objectives := default dict (ternary $plan.objectives $stage.objectives (kindIs "invalid" $stage.objectives)) -}}
{{- $lacks := "" -}}
{{- if $stage.load -}}
{{- if not (include "understudy.asks" $objectives) -}}
{{- $lacks = "objectives, such as p99, errors or rate" -}}
{{- else if and (eq (toString $stage.load.shape) "until-break") (not (hasKey $stage.load "at_least")) -}}
{{- $lacks = "at_least" -}}
{{- end -}}
{{- else if and $stage.capacity (not (hasKey $stage.capacity "at_least")) (not (hasKey $objectives "joules")) -}}
{{- $lacks = "at_least" -}}
{{- else if and $stage.cold_start (not (hasKey $stage.cold_start "within")) -}}
{{- $lacks = "within" -}}
{{- end -}}
{{- if $lacks -}}
{{- fail (printf "%s.stages.%s: would not be measured, because nothing is asked of it: give it %s, or judged: false" $name (toString $stage.name) $lacks) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $judged -}}
{{- fail (printf "%s.stages: no stage is judged, so nothing can pass: give a stage objectives" $name) -}}
{{- end -}}
{{- toYaml (merge (dict "version" 1) $plan) -}}
{{- end }}
